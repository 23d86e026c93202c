//! Prompts a second through the conflict measures in memory, 8 completions each, on every core:
//! prints one JSON object. `benches/peers` compares it with numpy.

use std::thread;
use std::time::Instant;

use gainsay_core::conflict::evaluate;
use gainsay_core::rng::Key;

const PROMPTS: usize = 200_000;
const COMPLETIONS: usize = 8;

fn main() {
    let mut draw = Key::new(0, "conflict-speed").stream();
    let rewards: Vec<f64> = (0..PROMPTS * COMPLETIONS).map(|_| draw.normal()).collect();
    let logps: Vec<f64> = (0..PROMPTS * COMPLETIONS).map(|_| -80.0 * draw.uniform()).collect();
    let mut pacs = vec![0.0; PROMPTS * COMPLETIONS];
    let mut kendall = vec![0.0; PROMPTS];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut seconds: Vec<f64> = (0..7)
        .map(|_| {
            let started = Instant::now();
            measure(threads, &rewards, &logps, &mut pacs, &mut kendall);
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let mean = kendall.iter().sum::<f64>() / PROMPTS as f64;
    println!(
        "{{\"prompts_per_second\":{:.0},\"threads\":{threads},\"mean_k\":{mean:.4}}}",
        PROMPTS as f64 / seconds[seconds.len() / 2]
    );
}

fn measure(threads: usize, rewards: &[f64], logps: &[f64], pacs: &mut [f64], kendall: &mut [f64]) {
    let share = PROMPTS.div_ceil(threads);
    thread::scope(|scope| {
        let values = rewards.chunks(share * COMPLETIONS).zip(logps.chunks(share * COMPLETIONS));
        let results = pacs.chunks_mut(share * COMPLETIONS).zip(kendall.chunks_mut(share));
        for ((rewards, logps), (pacs, kendall)) in values.zip(results) {
            scope.spawn(move || {
                let groups = rewards.chunks_exact(COMPLETIONS).zip(logps.chunks_exact(COMPLETIONS));
                for (((rewards, logps), out), k) in groups.zip(pacs.chunks_exact_mut(COMPLETIONS)).zip(kendall) {
                    *k = evaluate(rewards, logps, out).map_or(f64::NAN, |conflict| conflict.k);
                }
            });
        }
    });
}
