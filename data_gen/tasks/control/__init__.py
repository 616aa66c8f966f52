"""Classic control with varied physics: CartPole, Pendulum, Acrobot."""
