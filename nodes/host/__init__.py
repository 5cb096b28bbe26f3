"""Adapters of ComfyUI's models, VAEs, schedules and samplers to the interfaces of the library."""
