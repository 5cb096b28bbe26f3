"""The door to ComfyUI: its model, VAE, schedule and samplers as the library sees them."""
