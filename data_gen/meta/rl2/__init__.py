"""RL2: a recurrent policy whose hidden state learns (Duan et al. 2016)."""
