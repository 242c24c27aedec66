"""Ray: connecting to a cluster, submitting jobs to it, and manifests that start one."""
