"""Making a checkpoint from nothing: a fresh folder, then its VAE and its text encoders.

The UNet is trained by `train.py`: first its spatial layers on single frames, then its temporal ones
on clips. The small model that the package ships was made so; `docs/tiny_model.md` has the commands.
"""
