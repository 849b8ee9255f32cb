"""What a worker's main process does while its children run jobs: claims, heartbeats, the keeper."""
