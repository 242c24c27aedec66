"""What is done: tables, algorithms, models, stages and the recipes that join them."""
