//! Run-time choice of the instruction set.

use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction sets that the kernels know, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// What the compiler's target has.
    Portable = 1,
    /// AVX2 with FMA.
    Avx2 = 2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
    /// AVX-512 with products of bf16 pairs.
    Avx512Bf16 = 4,
}

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// The best instruction set of this machine.
pub fn best() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx512 && is_x86_feature_detected!("avx512bf16") {
            return Isa::Avx512Bf16;
        }
        if avx512 {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// The instruction set in use: the best one, or what `GAINSAY_ISA` (`portable`, `avx2`,
/// `avx512`) lowers it to.
pub fn isa() -> Isa {
    match CHOSEN.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        4 => Isa::Avx512Bf16,
        _ => {
            let wish = match std::env::var("GAINSAY_ISA").as_deref() {
                Ok("portable") => Isa::Portable,
                Ok("avx2") => Isa::Avx2,
                Ok("avx512") => Isa::Avx512,
                _ => Isa::Avx512Bf16,
            };
            let chosen = wish.min(best());
            CHOSEN.store(chosen as u8, Ordering::Relaxed);
            chosen
        }
    }
}

/// `a * b + c`; fused where the instruction set has it (`FMA`), since the portable fused form
/// is a library call.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA || cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function that runs `$body::<FMA>` compiled for the instruction set in use. The
/// body must be `#[inline(always)]`.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match $crate::isa::isa() {
                    // SAFETY: isa() is never better than what the machine reports.
                    $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::Isa::Portable => {}
                }
            }
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use vectorized;
