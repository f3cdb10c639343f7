"""The benchmark's prompt constants.

Source: mlcommons/inference, text_to_image (SDXL reference implementation).
"""

NEGATIVE_PROMPT = "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"
GUIDANCE_SCALE = 8.0
STEPS = 20
