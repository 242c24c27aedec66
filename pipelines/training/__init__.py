"""What stages that train share: the data they read, and their losses as objectives of the trainer."""
