"""The UNet: the way down that it shares with ControlNets, its blocks and transformers."""
