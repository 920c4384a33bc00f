"""Following another video: control frames, and the scale of each ControlNet in each step."""
