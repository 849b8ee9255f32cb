"""A kind that trains a network. Gateways import `acme_torch.contracts`, workers also `acme_torch.tasks`."""
