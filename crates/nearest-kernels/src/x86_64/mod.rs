//! x86-64.
use crate::kernels::Kernels;
/// Tables.
pub(crate) fn detected() -> impl Iterator<Item = &'static Kernels> {
    std::iter::empty()
}
