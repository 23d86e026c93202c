//! Speed of the matrix products at the default model's shapes: `products [threads] [bf16]`.

use std::time::Instant;

use gainsay_kernels::gemm::{Left, PackedWeight, Precision, matmul};

fn main() {
    let threads = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(0);
    let bf16 = std::env::args().nth(2).as_deref() == Some("bf16");
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    println!("{precision:?}");
    println!("{} threads, {:?}", gainsay_kernels::set_threads(threads), gainsay_kernels::isa::isa());
    for (m, n, k) in [
        (4096, 576, 576),
        (4096, 1536, 576),
        (4096, 576, 1536),
        (4096, 192, 576),
        (64, 576, 576),
        (64, 1536, 576),
        (64, 576, 1536),
        (64, 49152, 576),
        (8, 1536, 576),
        (8, 49152, 576),
        (4096, 8, 576),
    ] {
        let a = vec![0.5f32; m * k];
        let w = vec![0.25f32; n * k];
        let b = PackedWeight::transposed(&w, n, k, precision);
        let mut c = vec![0f32; m * n];
        let mut best = f64::INFINITY;
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 0.4 {
            let now = Instant::now();
            matmul(m, &a, Left::Rows, &b, &mut c, false);
            best = best.min(now.elapsed().as_secs_f64());
        }
        let work = 2.0 * m as f64 * n as f64 * k as f64;
        println!("{m:>5} x {n:>5} x {k:>5}: {:8.3} ms, {:6.1} GFLOP/s", best * 1e3, work / best * 1e-9);
    }
}
