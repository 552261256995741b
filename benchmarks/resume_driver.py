"""Trains a toy with a peer's own tools, dies on request, goes on its own way. In the peers' environment, never in ours.

    python resume_driver.py lightning|ultralytics SETTINGS.json

SETTINGS: data, folder, epochs, batch, size, die_at (a step, or 0), resume (true or false), seed. The state in the
end: `<folder>/final.pt`, a mapping of names to tensors."""

import json
import os
import sys
from pathlib import Path

import torch


def lightning(wanted: dict) -> None:
    """A small torchvision net with random augmentation and dropout; a checkpoint after every step, as its own
    ModelCheckpoint can; `ckpt_path` to go on, as its documentation says."""
    import lightning as pl
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from torchvision import datasets, models, transforms

    class Module(pl.LightningModule):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.net = models.mobilenet_v3_small(num_classes=classes)  # has dropout

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, wanted["epochs"])
            return [optimizer], [schedule]

    class Die(Callback):
        def on_train_batch_end(self, trainer, *_):
            if wanted["die_at"] and trainer.global_step >= wanted["die_at"]:
                os._exit(9)

    pl.seed_everything(wanted["seed"], workers=True)
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(wanted["size"]),
            transforms.ColorJitter(0.3, 0.3),
            transforms.ToTensor(),
        ]
    )
    data = datasets.ImageFolder(Path(wanted["data"]) / "train", change)
    loader = torch.utils.data.DataLoader(data, wanted["batch"], shuffle=True, drop_last=True)
    folder = Path(wanted["folder"])
    saver = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=1)
    trainer = pl.Trainer(
        max_epochs=wanted["epochs"], accelerator="cpu", callbacks=[saver, Die()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, deterministic=True,
    )  # fmt: skip
    module = Module(len(data.classes))
    trainer.fit(module, loader, ckpt_path=str(folder / "last.ckpt") if wanted["resume"] else None)
    torch.save(module.state_dict(), folder / "final.pt")


def ultralytics(wanted: dict) -> None:
    """yolo11n from scratch with its defaults; it saves at the end of each epoch and goes on with `resume=True`."""
    from ultralytics import YOLO, settings

    settings.update({"sync": False})
    folder = Path(wanted["folder"])
    done = [0]

    def at_batch_end(trainer) -> None:
        done[0] += 1
        if wanted["die_at"] and done[0] >= wanted["die_at"]:
            os._exit(9)

    def at_end(trainer) -> None:
        torch.save({k: v.float() for k, v in trainer.ema.ema.state_dict().items()}, folder / "final.pt")

    model = YOLO(str(folder / "run" / "weights" / "last.pt") if wanted["resume"] else "yolo11n.yaml")
    model.add_callback("on_train_batch_end", at_batch_end)
    model.add_callback("on_train_end", at_end)
    if wanted["resume"]:
        model.train(resume=True)
        return
    model.train(
        data=wanted["data"], imgsz=wanted["size"], batch=wanted["batch"], epochs=wanted["epochs"], device="cpu",
        pretrained=False, val=False, plots=False, verbose=False, seed=wanted["seed"], deterministic=True,
        project=str(folder), name="run", exist_ok=True, workers=0,
    )  # fmt: skip


if __name__ == "__main__":
    {"lightning": lightning, "ultralytics": ultralytics}[sys.argv[1]](
        json.loads(Path(sys.argv[2]).read_text())
    )
