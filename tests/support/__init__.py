"""Small real stages that the tests of the machinery run: numbers in, numbers out, with faults on demand."""
