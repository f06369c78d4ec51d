"""Fine-tuning jobs: options, creation, states, leases, what a running job records."""
