"""What any program needs: errors for people, atomic files, devices, the terminal, the hub's client."""
