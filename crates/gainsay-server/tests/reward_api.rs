//! The reward server on deterministic fakes: protocols, batching, pressure, access, hot swap.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use gainsay_core::engine::{EngineError, LogProb, RewardFn, ScoreItem, SequenceLogp};
use gainsay_core::fake::FakePolicy;
use gainsay_server::reward_api::{Engine, Limits, Member, Reload, RewardState, app};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Number of bytes, times a factor; refuses texts that hold "poison"; remembers its batches.
struct Length {
    factor: f64,
    wait: Duration,
    batches: Mutex<Vec<usize>>,
    active: AtomicUsize,
}

impl Length {
    fn new(factor: f64, wait: u64) -> Arc<Self> {
        let wait = Duration::from_millis(wait);
        Arc::new(Self { factor, wait, batches: Mutex::new(Vec::new()), active: AtomicUsize::new(0) })
    }
}

impl RewardFn for Length {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
        assert_eq!(self.active.fetch_add(1, Ordering::SeqCst), 0, "one batch at a time");
        self.batches.lock().unwrap().push(items.len());
        std::thread::sleep(self.wait);
        self.active.fetch_sub(1, Ordering::SeqCst);
        if items.iter().any(|i| i.text.contains("poison")) {
            return Err("poison is not readable".into());
        }
        assert!(!items.iter().any(|i| i.text.contains("bomb")), "the model fails");
        if items.iter().any(|i| i.text.contains("overflow")) {
            return Ok(vec![f64::INFINITY; items.len()]);
        }
        let length = |i: &ScoreItem<'_>| i.prompt.display().len() + i.token_ids.map_or(i.text.len(), <[u32]>::len);
        Ok(items.iter().map(|i| self.factor * length(i) as f64).collect())
    }

    fn identity(&self) -> String {
        format!("length*{}", self.factor)
    }
}

fn engine(members: &[Arc<Length>]) -> Engine {
    let member = |m: &Arc<Length>| Member { parts: m.clone(), rendered: m.clone() };
    Engine {
        members: members.iter().map(member).collect(),
        policy: None,
        count: None,
        max_tokens: usize::MAX,
        identity: members.iter().map(|m| m.identity()).collect::<Vec<_>>().join("+"),
    }
}

fn state(members: &[Arc<Length>], limits: Limits) -> RewardState {
    RewardState::new(engine(members), limits, None, None).unwrap()
}

async fn send(state: &RewardState, path: &str, body: Value, bearer: Option<&str>) -> Response {
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(key) = bearer {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    app(state.clone()).oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
}

async fn json_of(response: Response) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn post(state: &RewardState, path: &str, body: Value) -> (StatusCode, Value) {
    let response = send(state, path, body, None).await;
    (response.status(), json_of(response).await)
}

#[tokio::test]
async fn every_protocol_gives_the_same_reward() {
    let state = state(&[Length::new(0.5, 0)], Limits::default());
    let asks: [(&str, Value, &str); 9] = [
        ("/get_reward", json!({ "query": ["abcd"], "prompts": ["ab"], "labels": [""] }), "/rewards/0"),
        ("/classify", json!({ "model": "m", "input": "abcd", "use_activation": false }), "/data/0/probs/0"),
        ("/classify", json!({ "text": ["abcd"] }), "/0/embedding/0"),
        ("/pooling", json!({ "input": ["abcd"], "task": "classify" }), "/data/0/data/0"),
        ("/score", json!({ "text_1": "ab", "text_2": "cd" }), "/data/0/score"),
        ("/v1/embeddings", json!({ "model": "m", "input": [[1, 2, 3, 4]] }), "/data/0/embedding/0"),
        ("/predict", json!({ "inputs": [["abcd"]], "raw_scores": true }), "/0/0/score"),
        ("/v1/reward", json!({ "items": [{ "prompt": "ab", "completion": "cd" }] }), "/rewards/0"),
        ("/v1/reward", json!({ "prompt": "ab", "completions": ["cd", "cdef"] }), "/rewards/0"),
    ];
    for (path, body, place) in asks {
        let (status, answer) = post(&state, path, body).await;
        assert_eq!((status, answer.pointer(place)), (StatusCode::OK, Some(&json!(2.0))), "{path}: {answer}");
    }
    assert_eq!(
        post(&state, "/get_reward", json!({ "query": [], "prompts": [], "labels": [] })).await.1["rewards"],
        json!([])
    );
}

#[tokio::test]
async fn ensembles_have_a_variance_and_policies_give_pacs() {
    let mut engine = engine(&[Length::new(1.0, 0), Length::new(3.0, 0)]);
    engine.policy = Some(Arc::new(FakePolicy::uniform()));
    let state = RewardState::new(engine, Limits::default(), None, None).unwrap();
    let (_, answer) = post(&state, "/v1/reward", json!({ "prompt": "p", "completions": ["a", "bbb"] })).await;
    // Lengths 2 and 4: means 2 * 2 and 2 * 4, deviations 1 * 2 and 1 * 4.
    assert_eq!((&answer["rewards"], &answer["variances"]), (&json!([4.0, 8.0]), &json!([4.0, 16.0])));
    // The longer answer is better and less likely: z = 1 - (-1).
    let pacs: Vec<f64> = serde_json::from_value(answer["pacs"].clone()).unwrap();
    assert!((pacs[0] + 2.0).abs() < 1e-9 && (pacs[1] - 2.0).abs() < 1e-9, "{answer}");
}

#[tokio::test]
async fn single_samples_share_batches_and_keep_their_bits() {
    let model = Length::new(0.1, 20);
    let state = state(std::slice::from_ref(&model), Limits { batch: 16, ..Limits::default() });
    let asks = (0..200usize).map(|i| {
        let state = state.clone();
        tokio::spawn(async move { post(&state, "/get_reward", json!({ "query": ["x".repeat(i + 1)] })).await })
    });
    let asks: Vec<_> = asks.collect();
    for (i, ask) in asks.into_iter().enumerate() {
        let (status, answer) = ask.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        let reward = answer["rewards"][0].as_f64().unwrap();
        assert_eq!(reward.to_bits(), (0.1 * (i + 1) as f64).to_bits());
    }
    let batches = model.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 200);
    assert!(batches.iter().all(|b| *b <= 16) && batches.len() < 40, "{batches:?}");
}

#[tokio::test]
async fn one_unreadable_sample_does_not_fail_its_neighbors() {
    let state = state(&[Length::new(1.0, 10)], Limits::default());
    let texts = ["good", "poison", "fine"];
    let asks = texts.map(|t| {
        let state = state.clone();
        tokio::spawn(async move { post(&state, "/get_reward", json!({ "query": [t] })).await })
    });
    let mut statuses = Vec::new();
    for ask in asks {
        let (status, answer) = ask.await.unwrap();
        assert!(status.is_success() || answer["error"]["message"].as_str().unwrap().contains("poison"), "{answer}");
        statuses.push(status.as_u16());
    }
    assert_eq!(statuses, [200, 422, 200]);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let state = state(&[Length::new(1.0, 200)], Limits { batch: 1, queue: 2, ..Limits::default() });
    let asks: Vec<_> = (0..6)
        .map(|_| {
            let state = state.clone();
            tokio::spawn(async move { send(&state, "/get_reward", json!({ "query": ["x"] }), None).await })
        })
        .collect();
    let (mut taken, mut refused) = (0, 0);
    for ask in asks {
        let response = ask.await.unwrap();
        match response.status() {
            StatusCode::OK => taken += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert_eq!(response.headers()["retry-after"], "1");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(taken >= 2 && refused >= 2, "{taken} {refused}");
    let (status, _) = post(&state, "/get_reward", json!({ "query": ["x", "x", "x"] })).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn limits_and_wrong_bodies_are_named() {
    let mut engine = engine(&[Length::new(1.0, 0)]);
    engine.max_tokens = 10;
    engine.count = Some(Arc::new(|item| Ok(item.as_score_item().text.len())));
    let state = RewardState::new(engine, Limits { body: 200, ..Limits::default() }, None, None).unwrap();
    let said = |v: &Value| v["error"]["message"].as_str().unwrap_or("").to_owned();
    for (path, body, status, part) in [
        ("/get_reward", json!({ "query": ["x".repeat(11)] }), 422, "the limit is 10"),
        ("/get_reward", json!({ "query": ["x".repeat(300)] }), 413, "200 bytes"),
        ("/get_reward", json!({ "query": 7 }), 400, "query"),
        ("/predict", json!({ "inputs": ["a", "b"] }), 400, "pair"),
        ("/v1/reward", json!({ "items": [{ "prompt": "p" }] }), 400, "completion"),
        ("/nowhere", json!({}), 404, "/get_reward"),
        ("/v1/reload", json!({}), 403, "SIGUSR1"),
    ] {
        let (code, answer) = post(&state, path, body).await;
        assert!(code.as_u16() == status && said(&answer).contains(part), "{path} {code} {answer}");
    }
    let broken = Request::post("/get_reward").body(Body::from("{\"query\":[")).unwrap();
    assert_eq!(app(state).oneshot(broken).await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_key_is_demanded_in_header_or_path() {
    let state =
        RewardState::new(engine(&[Length::new(1.0, 0)]), Limits::default(), Some("sesame".into()), None).unwrap();
    let ask = || json!({ "query": ["abc"] });
    let status = |path: &'static str, key: Option<&'static str>| {
        let state = state.clone();
        async move { send(&state, path, ask(), key).await.status().as_u16() }
    };
    assert_eq!(status("/get_reward", None).await, 401);
    assert_eq!(status("/get_reward", Some("sesam")).await, 401);
    assert_eq!(status("/get_reward", Some("sesame")).await, 200);
    assert_eq!(status("/k/sesame/get_reward", None).await, 200);
    assert_eq!(status("/k/wrong/get_reward", None).await, 401);
    let get = |path: &'static str| app(state.clone()).oneshot(Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(get("/health").await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/metrics").await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_hot_swap_drops_no_request() {
    let newer = Length::new(2.0, 1);
    let loader = {
        let newer = newer.clone();
        Arc::new(move |spec: &str| match spec {
            "newer" => Ok(engine(std::slice::from_ref(&newer))),
            other => Err(format!("there is no {other}")),
        })
    };
    let reload = Reload { loader, spec: "newer".into() };
    let old = engine(&[Length::new(1.0, 1)]);
    let state =
        RewardState::new(old, Limits { batch: 4, ..Limits::default() }, Some("k".into()), Some(reload)).unwrap();
    let ask = |i: usize| {
        let state = state.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(i as u64 / 4)).await;
            let response = send(&state, "/get_reward", json!({ "query": ["xx"] }), Some("k")).await;
            (response.status(), json_of(response).await)
        })
    };
    let asks: Vec<_> = (0..200).map(ask).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let wrong = send(&state, "/v1/reload", json!({ "reward": "nothing" }), Some("k")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send(&state, "/v1/reload", json!({}), Some("k")).await.status(), StatusCode::OK);
    let mut seen = [0, 0];
    for asked in asks {
        let (status, answer) = asked.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        seen[usize::from(answer["rewards"][0] == 4.0)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    let (_, after) = (0, json_of(send(&state, "/get_reward", json!({ "query": ["xx"] }), Some("k")).await).await);
    assert_eq!(after["rewards"][0], 4.0);
}

#[tokio::test]
async fn a_request_is_scored_by_the_models_that_took_it() {
    let old = Length::new(1.0, 20);
    let state = state(std::slice::from_ref(&old), Limits { batch: 2, ..Limits::default() });
    let ask = |n: usize| {
        let state = state.clone();
        tokio::spawn(
            async move { post(&state, "/v1/reward", json!({ "items": vec![json!({ "text": "xx" }); n] })).await },
        )
    };
    // Nine samples wait for an old model that takes two at a time; four come after the swap.
    let before = ask(9);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let newer = Length::new(2.0, 1);
    state.swap(engine(std::slice::from_ref(&newer)));
    let after = ask(4);
    let (_, before) = before.await.unwrap();
    assert_eq!((&before["model"], &before["rewards"]), (&json!("length*1"), &json!(vec![2.0; 9])));
    let (_, after) = after.await.unwrap();
    assert_eq!((&after["model"], &after["rewards"]), (&json!("length*2"), &json!(vec![4.0; 4])));
    let batches = |m: &Length| m.batches.lock().unwrap().iter().sum::<usize>();
    assert_eq!((batches(&old), batches(&newer)), (9, 4));
}

#[tokio::test]
async fn a_fault_of_the_server_is_no_fault_of_the_client() {
    let state = state(&[Length::new(1.0, 0)], Limits::default());
    for (text, status, part) in [("bomb", 500, "failed"), ("overflow", 500, "finite"), ("poison", 422, "readable")] {
        let (code, answer) = post(&state, "/get_reward", json!({ "query": ["good", text] })).await;
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(code.as_u16() == status && said.contains("sample 1") && said.contains(part), "{code} {answer}");
    }
    assert_eq!(post(&state, "/get_reward", json!({ "query": ["good"] })).await.0, StatusCode::OK);
}

#[tokio::test]
async fn one_model_is_loaded_at_a_time() {
    let loader = Arc::new(|spec: &str| {
        std::thread::sleep(Duration::from_millis(if spec == "slow" { 200 } else { 0 }));
        match spec {
            "panics" => panic!("a loader that fails"),
            _ => Ok(engine(&[Length::new(if spec == "slow" { 2.0 } else { 3.0 }, 0)])),
        }
    });
    let reload = Reload { loader, spec: "quick".into() };
    let old = engine(&[Length::new(1.0, 0)]);
    let state = RewardState::new(old, Limits::default(), Some("k".into()), Some(reload)).unwrap();
    let ask = |spec: &'static str| {
        let state = state.clone();
        async move { send(&state, "/v1/reload", json!({ "reward": spec }), Some("k")).await.status().as_u16() }
    };
    let slow = tokio::spawn(ask("slow"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ask("quick").await, 409);
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(state.engine().identity, "length*2");
    assert_eq!(ask("panics").await, 422);
    assert_eq!(ask("quick").await, 200, "a load that panicked bars none");
    assert_eq!(state.engine().identity, "length*3");
}

#[tokio::test]
async fn samples_are_counted_once_there_is_room() {
    static COUNTED: AtomicUsize = AtomicUsize::new(0);
    let mut engine = engine(&[Length::new(1.0, 200)]);
    engine.count = Some(Arc::new(|_| {
        COUNTED.fetch_add(1, Ordering::SeqCst);
        Ok(1)
    }));
    let state = RewardState::new(engine, Limits { batch: 1, queue: 2, ..Limits::default() }, None, None).unwrap();
    let ask = || {
        let state = state.clone();
        tokio::spawn(async move { post(&state, "/get_reward", json!({ "query": ["x", "x"] })).await.0.as_u16() })
    };
    let taken = ask();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((ask().await.unwrap(), COUNTED.load(Ordering::SeqCst)), (429, 2));
    assert_eq!(taken.await.unwrap(), 200);
    // A sample that is refused gives its place back.
    let mut engine = self::engine(&[Length::new(1.0, 0)]);
    engine.count = Some(Arc::new(|_| Err("it is unreadable".into())));
    let state = RewardState::new(engine, Limits { queue: 2, ..Limits::default() }, None, None).unwrap();
    for _ in 0..3 {
        assert_eq!(post(&state, "/get_reward", json!({ "query": ["x", "x"] })).await.0.as_u16(), 422);
    }
    assert_eq!(post(&state, "/get_reward", json!({ "query": [] })).await.0.as_u16(), 200);
}

/// A policy that takes its time and remembers how often it was asked.
#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
    active: AtomicUsize,
}

impl LogProb for Slow {
    fn logps(&self, items: &[ScoreItem<'_>]) -> Result<Vec<SequenceLogp>, EngineError> {
        assert_eq!(self.active.fetch_add(1, Ordering::SeqCst), 0, "one request at a time");
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        self.active.fetch_sub(1, Ordering::SeqCst);
        Ok(items.iter().map(|i| SequenceLogp { sum: -(i.text.len() as f64), token_logps: Vec::new() }).collect())
    }

    fn identity(&self) -> String {
        "slow".into()
    }
}

#[tokio::test]
async fn pacs_has_its_own_queue_and_skips_those_that_left() {
    let policy = Arc::new(Slow::default());
    let mut engine = engine(&[Length::new(1.0, 0)]);
    engine.policy = Some(policy.clone());
    let state = RewardState::new(engine, Limits { pacs: 2, ..Limits::default() }, None, None).unwrap();
    let ask = || {
        let state = state.clone();
        tokio::spawn(
            async move { post(&state, "/v1/reward", json!({ "prompt": "p", "completions": ["a", "bb"] })).await },
        )
    };
    let first = ask();
    while policy.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = ask();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ask().await.unwrap().0, StatusCode::TOO_MANY_REQUESTS);
    // Without PACS nothing waits.
    let plain = post(&state, "/v1/reward", json!({ "items": [{ "text": "a" }] })).await;
    assert_eq!(plain.0, StatusCode::OK);
    // The second waits for its turn, and leaves.
    second.abort();
    let (status, answer) = first.await.unwrap();
    assert!(status == StatusCode::OK && answer["pacs"].is_array(), "{answer}");
    assert_eq!(ask().await.unwrap().0, StatusCode::OK);
    assert_eq!(policy.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_half_sent_header_does_not_delay_the_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let state = state(&[Length::new(1.0, 0)], Limits { head_time: Duration::from_millis(300), ..Limits::default() });
    let server = tokio::spawn(gainsay_server::reward_api::serve(listener, state, async move {
        let _ = stopped.await;
    }));
    let half = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "POST /get_reward HTTP/1.1\r\nhost").unwrap();
        stream
    });
    let half = half.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("it ends").unwrap().unwrap();
    drop(half);
}

#[tokio::test]
async fn shutting_down_finishes_what_is_under_way() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let state = state(&[Length::new(1.0, 300)], Limits::default());
    let server = tokio::spawn(gainsay_server::reward_api::serve(listener, state, async move {
        let _ = stopped.await;
    }));
    let ask = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let body = r#"{"query":["four"]}"#;
        write!(stream, "POST /get_reward HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = [0u8; 2048];
        let n = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..n]).into_owned()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    let answer = ask.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"rewards\":[4.0]"), "{answer}");
    server.await.unwrap().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}
