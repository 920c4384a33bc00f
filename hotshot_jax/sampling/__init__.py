"""The denoising path: predictor, guidance and scheduler, put together in one compiled step."""
