"""What a stage is, and how a DAG of stages is planned and run."""
