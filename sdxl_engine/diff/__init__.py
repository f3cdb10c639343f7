"""Two engines on the same prompts: where in the pipeline do they part?"""
