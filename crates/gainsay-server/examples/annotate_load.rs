//! Load on a running annotation app: 50 annotators answer at a fixed pace, whatever the server
//! does (an open loop), and every acknowledged answer is looked up in the database afterwards.
//!
//!     annotate_load DB HOST:PORT SECONDS
//!
//! Where the server is killed and started again meanwhile, connections are made anew.
//! `scripts/bench-annotate` runs it.

use std::collections::HashSet;
use std::error::Error;
use std::time::{Duration, Instant};

use gainsay_server::annotate::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANNOTATORS: u32 = 50;
const ANSWERS_PER_SECOND: f64 = 100.0;

type Failed = Box<dyn Error + Send + Sync>;

/// Sends a request on a kept connection, made anew where it is gone: (status, body).
async fn ask(stream: &mut Option<TcpStream>, address: &str, request: &str) -> Result<(u16, String), Failed> {
    if stream.is_none() {
        let fresh = TcpStream::connect(address).await?;
        fresh.set_nodelay(true)?;
        *stream = Some(fresh);
    }
    let result = exchange(stream.as_mut().ok_or("no connection")?, request).await;
    if result.is_err() {
        *stream = None;
    }
    result
}

async fn exchange(stream: &mut TcpStream, request: &str) -> Result<(u16, String), Failed> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 16384];
    loop {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
            return Ok((status, body.to_owned()));
        }
    }
}

fn hidden(page: &str, name: &str) -> Option<String> {
    let start = format!("name=\"{name}\" value=\"");
    Some(page[page.find(&start)? + start.len()..].split('"').next()?.to_owned())
}

/// One annotator: latencies of answers in milliseconds, and the items acknowledged.
async fn work(session: String, address: String, first: Instant, end: Instant) -> (Vec<f64>, HashSet<i64>, usize) {
    let (mut stream, mut latencies, mut acknowledged, mut failures) = (None, Vec::new(), HashSet::new(), 0);
    let mut due = first;
    let get = format!("GET /work HTTP/1.1\r\nHost: x\r\nCookie: gainsay_session={session}\r\n\r\n");
    while due < end {
        let page = ask(&mut stream, &address, &get).await;
        let Some((csrf, item, ticket)) = page
            .ok()
            .and_then(|(_, page)| Some((hidden(&page, "csrf")?, hidden(&page, "item")?, hidden(&page, "ticket")?)))
        else {
            failures += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            due = due.max(Instant::now());
            continue;
        };
        tokio::time::sleep_until(due.into()).await;
        let body = format!("csrf={csrf}&item={item}&ticket={ticket}&answer=left1&seconds=1");
        let request = format!(
            "POST /work HTTP/1.1\r\nHost: x\r\nCookie: gainsay_session={session}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        match ask(&mut stream, &address, &request).await {
            Ok((303, _)) => {
                latencies.push(due.elapsed().as_secs_f64() * 1000.0);
                acknowledged.insert(item.parse().unwrap_or(-1));
            }
            _ => failures += 1,
        }
        due += Duration::from_secs_f64(f64::from(ANNOTATORS) / ANSWERS_PER_SECOND);
    }
    (latencies, acknowledged, failures)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [db, address, seconds] = args.as_slice() else { return Err("annotate_load DB HOST:PORT SECONDS".into()) };
    let store = Store::open(db).await?;
    let mut crowd = Vec::new();
    let start = Instant::now() + Duration::from_secs(3);
    let end = start + Duration::from_secs_f64(seconds.parse()?);
    for i in 0..ANNOTATORS {
        let name = format!("load {i:02}");
        let invite = store.invite(&name).await?;
        let session = store.accept_invite(&invite).await?.ok_or("an invite was not accepted")?;
        let id = store.people().await?.into_iter().find(|p| p.name == name).ok_or("no such annotator")?.id;
        store.briefed(id).await?;
        let first = start + Duration::from_secs_f64(f64::from(i) / ANSWERS_PER_SECOND);
        crowd.push((name, tokio::spawn(work(session, address.clone(), first, end))));
    }
    let (mut latencies, mut acknowledged, mut failures) = (Vec::new(), Vec::new(), 0);
    for (name, handle) in crowd {
        let (times, items, failed) = handle.await?;
        latencies.extend(times);
        acknowledged.extend(items.into_iter().map(|item| (name.clone(), item)));
        failures += failed;
    }
    // The database may have been killed with the server: ask a fresh connection.
    let store = Store::open(db).await?;
    let votes = store.votes().await?;
    let there: HashSet<(String, i64)> = votes.iter().map(|v| (v.annotator.clone(), v.item)).collect();
    let lost = acknowledged.iter().filter(|a| !there.contains(*a)).count();
    let overlap = store.settings().await?.overlap as usize;
    let mut of_item = std::collections::HashMap::<i64, usize>::new();
    votes.iter().for_each(|v| *of_item.entry(v.item).or_default() += 1);
    let over = of_item.values().filter(|n| **n > overlap).count();
    let doubled = votes.len() - there.len();
    latencies.sort_by(f64::total_cmp);
    let at = |q: f64| latencies.get((q * latencies.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "{} answers acknowledged, {lost} lost, {} doubled, {over} items over their overlap, {failures} requests failed; \
         p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        acknowledged.len(),
        doubled,
        at(0.5),
        at(0.99),
        latencies.last().copied().unwrap_or(f64::NAN),
    );
    if lost + doubled + over > 0 { Err("answers were lost or doubled, or items have too many".into()) } else { Ok(()) }
}
