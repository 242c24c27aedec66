"""Who holds a device: plain classes, one device each. Ray wraps them at launch; tests call them directly."""
