//! Distance kernels of `nearest`.
