"""The faces: what an operator sees. They translate and print, and decide nothing about tasks."""
