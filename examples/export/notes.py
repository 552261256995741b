"""From a picture to a file's input, and from its outputs to notes; `about` are the metadata inside the file."""

import cv2
import numpy as np


def prepared(path, about):
    """The picture as images_1CHW float32, and how to get back: (scale, shift), each x and y."""
    how = about["input"]["preprocess"]
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    size, side = np.array(picture.shape[1::-1]), how["image_size"]
    inner = [side, side]
    if how["resize"] == "letterbox":
        inner = [max(1, min(side, round(each * side / size.max()))) for each in size.tolist()]
    left, top = ((side - each) // 2 for each in inner)
    way = cv2.INTER_AREA if (inner < size).any() else cv2.INTER_LINEAR
    square = np.full((side, side, 3), how["pad_value"], np.uint8)
    square[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=way)
    images = ((square / 255 - how["mean"]) / how["std"]).transpose(2, 0, 1)[None].astype(np.float32)
    batch = about["input"]["shape"][0]  # a number, or "batch" for any
    return np.repeat(images, batch if isinstance(batch, int) else 1, 0), (inner / size, np.array([left, top]))


def once(boxes, scores, iou):
    """Non-maximum suppression: the rows that stay, best first."""
    rest, kept = np.argsort(-scores, kind="stable"), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        inner = np.clip(high - low, 0, None).prod(1)
        rest = rest[inner <= iou * (areas[best] + areas[rest] - inner)]
    return np.array(kept, int)


def found(outputs, about, back):
    """The notes of the first picture: class, value in Rupiah, score, box xyxy in px of the picture."""
    rule = about["nms"]
    if about["task"] == "classify":
        label = int(outputs["probabilities"][0].argmax())
        return [note(about, label, outputs["probabilities"][0][label])]
    if rule["inside"]:
        its = outputs["image"] == 0
        boxes, scores, labels = (outputs[name][its] for name in ("box", "score", "label"))
    else:
        rows, labels = (outputs["scores"][0] > rule["threshold"]).nonzero()
        boxes, scores = outputs["boxes"][0][rows], outputs["scores"][0][rows, labels]
        apart = (
            boxes + 4 * about["input"]["shape"][2] * labels[:, None]
        )  # classes do not suppress one another
        kept = once(apart, scores, rule["iou"])
        kept = kept[once(boxes[kept], scores[kept], rule["same_note_iou"])]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    (scale, shift) = back
    boxes = (boxes - np.tile(shift, 2)) / np.tile(scale, 2)
    return [note(about, label, score, box) for label, score, box in zip(labels, scores, boxes)]


def note(about, label, score, box=()):
    name, value = about["classes"][label], about["values_rupiah"][label]
    return {"class": name, "value": value, "score": float(score), "box": [float(side) for side in box]}
