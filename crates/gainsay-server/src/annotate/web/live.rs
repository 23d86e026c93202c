//! Live mode: after each batch of answers the queue is ranked anew.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use maud::{Markup, html};

use super::App;
use crate::annotate::aggregate::{Rule, preferences};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::live::Point;

/// Waits for answers and refits, until the server ends.
pub(super) async fn follow(app: Arc<App>) {
    let Some(live) = &app.live else { return };
    let every = live.every.max(1);
    let mut done = 0;
    loop {
        // Other servers on the same database do not wake this one.
        tokio::time::timeout(Duration::from_secs(5), app.answered.notified()).await.ok();
        if live.refit.preparing().is_some() {
            continue;
        }
        let problem = match app.store.answer_count().await {
            Ok(answers) if answers >= done + every => {
                done = answers;
                refit(&app, answers).await.err().map(|e| e.to_string())
            }
            Ok(_) => continue,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem {
            eprintln!("annotate: live mode: {problem}");
        }
        *app.live_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

async fn refit(app: &Arc<App>, answers: i64) -> Result<()> {
    let started = Instant::now();
    let (items, votes) = (app.store.items().await?, app.store.votes().await?);
    let decided = app.store.resolutions().await?;
    let worker = app.clone();
    let fitted = tokio::task::spawn_blocking(move || {
        let answered = preferences(&items, &votes, &decided, Rule::Majority);
        worker.live.as_ref().map(|live| live.refit.refit(&answered))
    })
    .await
    .map_err(|e| AnnotateError::Serve(format!("the fit broke off: {e}")))?;
    let Some(fitted) = fitted else { return Ok(()) };
    let fitted = fitted.map_err(AnnotateError::Serve)?;
    app.store.rerank(&fitted.places).await?;
    let accuracy = (fitted.held_out > 0).then(|| fitted.right / fitted.held_out as f64);
    let seconds = started.elapsed().as_secs_f64();
    let point = Point { answers, fitted: fitted.fitted, accuracy, held_out: fitted.held_out, seconds };
    eprintln!("annotate: queue ranked anew after {answers} answers in {seconds:.2} s");
    app.curve.lock().unwrap_or_else(PoisonError::into_inner).push(point);
    Ok(())
}

/// The curve of held-out accuracy.
pub(super) fn curve(app: &App) -> Markup {
    let points = app.curve.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let problem = app.live_problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let preparing = app.live.as_ref().and_then(|live| live.refit.preparing());
    let known: Vec<(i64, f64)> = points.iter().filter_map(|p| Some((p.answers, p.accuracy?))).collect();
    let most = known.last().map_or(1, |p| p.0).max(1) as f64;
    let place = |(answers, accuracy): &(i64, f64)| {
        format!("{:.1},{:.1}", 40.0 + 540.0 * *answers as f64 / most, 130.0 - 110.0 * accuracy)
    };
    let line: Vec<String> = known.iter().map(place).collect();
    html! {
        section.card {
            h2 { "Live mode" }
            @if let Some(problem) = problem { p.warning role="alert" { "The last fit failed: " (problem) } }
            @if let Some(last) = points.last() {
                p { "After " (last.answers) " answers: " (last.fitted) " pairs fitted, held-out accuracy "
                    (last.accuracy.map_or("unknown".into(), |a| format!("{:.0} %", 100.0 * a))) " on " (last.held_out)
                    " pairs; the queue was ranked anew in " (format!("{:.2}", last.seconds)) " s." }
                svg.curve viewBox="0 0 600 150" role="img" aria-label="Held-out accuracy by answers" {
                    line x1="40" y1="130" x2="580" y2="130" class="axis" {}
                    line x1="40" y1="75" x2="580" y2="75" class="chance" {}
                    line x1="40" y1="20" x2="580" y2="20" class="axis" {}
                    text x="4" y="134" { "0 %" } text x="4" y="79" { "50 %" } text x="4" y="24" { "100 %" }
                    polyline points=(line.join(" ")) class="line" {}
                    @for p in &known {
                        @let at = place(p);
                        @let (x, y) = at.split_once(',').unwrap_or(("0", "0"));
                        circle cx=(x) cy=(y) r="3" class="dot" {}
                    }
                    text x="500" y="147" { (most) " answers" }
                }
            } @else if let Some(preparing) = preparing {
                p { "No fit yet: " (preparing) "." }
            } @else {
                p { "No fit yet: the first comes with the first batch of answers." }
            }
            p.hint { "Whether ranking anew pays is an open question: the curve shows held-out accuracy, not a gain over the queue as it was." }
        }
    }
}
