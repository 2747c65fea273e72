"""The mathematics of Gaussian diffusion, pure: formulations, samplers, guidance. No network lives here.

Every Gaussian diffusion is a straight line in the right coordinates. With x = alpha x0 + sigma eps, put
y = x / (alpha + sigma) and t = sigma / (alpha + sigma); then y = (1 - t) x0 + t eps, rectified flow's own line, and all
samplers integrate dy/dt = v(y, t) = eps - x0 from t near 1 to 0.
"""
