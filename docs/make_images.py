"""Draw the pictures in docs/images again: python docs/make_images.py"""

from __future__ import annotations

from pathlib import Path

import cv2

from smartcash.backend.specimens import draw_chart

if __name__ == "__main__":
    target = Path(__file__).parent / "images" / "specimens.jpg"
    target.parent.mkdir(exist_ok=True)
    _, encoded = cv2.imencode(".jpg", draw_chart()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    target.write_bytes(encoded.tobytes())
    print(f"{target}: {len(encoded) / 1000:.0f} kB")
