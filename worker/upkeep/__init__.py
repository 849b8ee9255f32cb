"""What a worker's main process does while its children run jobs: claims, signs of life, the keeper."""
