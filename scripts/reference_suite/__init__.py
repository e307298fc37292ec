"""The cases that Docker's engine and ours must answer alike, told over HTTP to a Docker socket; scripts/reference runs them."""
