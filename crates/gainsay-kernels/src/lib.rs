//! CPU kernels on plain slices: matrix products, attention, norms, activations and the fused
//! vocabulary product, forward and backward. All matrices are row-major f32.
//!
//! Determinism: every output element is one chain of operations in an order that depends on the
//! contraction length alone, never on the number of rows, on neighboring rows or on threads.

pub mod activation;
pub mod attention;
mod exp;
pub mod gemm;
pub mod isa;
pub mod norm;
pub mod rope;
pub mod softmax;
pub mod vector;
pub mod vocab;

/// Sets the number of threads of every kernel (rayon's global pool). The first caller decides;
/// returns the number in use.
pub fn set_threads(threads: usize) -> usize {
    // An error only says that the pool exists already; its size is what the caller gets back.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    rayon::current_num_threads()
}
