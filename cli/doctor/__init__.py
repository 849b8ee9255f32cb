"""`celeriac doctor`: what is wrong with a set-up. Each module looks at one part of it and changes nothing."""
