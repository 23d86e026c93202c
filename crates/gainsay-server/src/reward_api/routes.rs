//! The routes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use gainsay_core::conflict::pacs;
use gainsay_core::engine::ScoreItem;
use serde_json::{Value, json};
use tower::Layer;

use super::access::guard;
use super::answers::{self, Scores, fail};
use super::item::Item;
use super::queue::{Refused, Unscored};
use super::state::{Engine, LoadError, RewardState, SharedPolicy};

type Parse = fn(&Value) -> Result<Vec<Item>, String>;
type Shape = fn(&Value, &Scores) -> Value;

/// The reward server as a service: tested without a socket.
pub fn app(state: RewardState) -> Router {
    let inner = Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        .route("/get_reward", scored("/get_reward", answers::openrlhf, |_, s| answers::to_openrlhf(s)))
        .route("/classify", scored("/classify", answers::classify, classified))
        .route(
            "/pooling",
            scored("/pooling", answers::classify, |b, s| answers::to_vllm_pooling(b, s, &next_id(), now())),
        )
        .route("/score", scored("/score", answers::score, |b, s| answers::to_vllm_score(b, s, &next_id(), now())))
        .route(
            "/v1/embeddings",
            scored("/v1/embeddings", |b| answers::inputs(&b["input"], "input"), |_, s| answers::to_embeddings(s)),
        )
        .route("/predict", scored("/predict", answers::tei, answers::to_tei))
        .route("/v1/reward", post(reward))
        .route("/v1/reload", post(reload))
        .fallback(|| async { fail(StatusCode::NOT_FOUND, NO_ROUTE) })
        .method_not_allowed_fallback(|| async {
            fail(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .with_state(state.clone());
    // The guard may take a key out of the path, so it runs before the path is matched.
    let guarded = middleware::from_fn_with_state(state, guard).layer(inner);
    Router::new().fallback_service(guarded)
}

const NO_ROUTE: &str = "there is POST /get_reward (OpenRLHF), /classify, /pooling, /score (vLLM), /classify, \
                        /v1/embeddings (SGLang), /predict (text-embeddings-inference), /v1/reward; GET /health, /metrics";

/// `/classify` is vLLM's and SGLang's: the request's field tells which.
fn classified(body: &Value, scores: &Scores) -> Value {
    match body["text"].is_null() {
        true => answers::to_vllm_classify(body, scores, &next_id(), now()),
        false => answers::to_sglang_classify(body, scores),
    }
}

fn scored(route: &'static str, parse: Parse, shape: Shape) -> axum::routing::MethodRouter<RewardState> {
    post(move |State(state): State<RewardState>, body: Body| {
        timed(state.clone(), route, async move {
            let body = read(&state, body).await?;
            let items = parse(&body).map_err(|e| fail(StatusCode::BAD_REQUEST, &e))?;
            let scores = score(&state, &state.engine(), items).await?;
            Ok(Json(shape(&body, &scores)).into_response())
        })
    })
}

/// Counts the request, whatever its outcome.
async fn timed(
    state: RewardState,
    route: &'static str,
    work: impl Future<Output = Result<Response, Response>>,
) -> Response {
    let started = Instant::now();
    let response = work.await.unwrap_or_else(|error| error);
    state.metrics.request(route, response.status().as_u16(), started.elapsed());
    response
}

/// The body as JSON, within its limits of size and time.
async fn read(state: &RewardState, body: Body) -> Result<Value, Response> {
    let bytes = axum::body::to_bytes(body, state.limits.body);
    let bytes = tokio::time::timeout(state.limits.body_time, bytes)
        .await
        .map_err(|_| fail(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"))?
        .map_err(|error| {
            let limit = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
            match limit {
                true => fail(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("the body is larger than {} bytes; send fewer samples at once", state.limits.body),
                ),
                false => fail(StatusCode::BAD_REQUEST, "the body did not arrive whole"),
            }
        })?;
    serde_json::from_slice(&bytes).map_err(|e| fail(StatusCode::BAD_REQUEST, &format!("the body is no JSON: {e}")))
}

/// Takes its places in the queue, counts tokens, waits, gathers the ensemble's rewards. All of it
/// is one engine's: what comes in force meanwhile is for the requests that come after.
async fn score(state: &RewardState, engine: &Arc<Engine>, items: Vec<Item>) -> Result<Scores, Response> {
    let refuse = |refused| match refused {
        Refused::Full => busy("too many samples wait already; try again"),
        Refused::TooMany => fail(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("more samples than the queue ever holds ({}); send fewer at once", state.limits.queue),
        ),
        Refused::Gone => fail(StatusCode::INTERNAL_SERVER_ERROR, "the scoring thread has ended; restart the server"),
    };
    let room = state.queue.reserve(items.len()).map_err(refuse)?;
    // Tokenizing a long body takes long: other connections go on.
    let counting = engine.clone();
    let counted = tokio::task::spawn_blocking(move || tokens_of(&counting, &items).map(|tokens| (items, tokens)));
    let (items, tokens) = counted
        .await
        .map_err(|_| fail(StatusCode::INTERNAL_SERVER_ERROR, "counting tokens failed; the server's log says more"))?
        .map_err(|e| fail(StatusCode::UNPROCESSABLE_ENTITY, &e))?;
    let outcomes = state.queue.score(room, engine, items).await.map_err(refuse)?;
    let named = outcomes.into_iter().enumerate().map(|(i, outcome)| outcome.map_err(|e| (i, e)));
    let rewards: Vec<Vec<f64>> = named.collect::<Result<_, _>>().map_err(|(i, e)| unscored(i, &e))?;
    Ok(Scores::of(&rewards, tokens, engine.identity.clone()))
}

/// Tokens of the samples, where the models count them; what is wrong with one that cannot be read.
fn tokens_of(engine: &Engine, items: &[Item]) -> Result<u64, String> {
    let Some(count) = &engine.count else { return Ok(0) };
    let one = |(i, item): (usize, &Item)| match count(item) {
        Ok(n) if n <= engine.max_tokens => Ok(n as u64),
        Ok(n) => Err(format!("sample {i}: it has {n} tokens, and the limit is {}", engine.max_tokens)),
        Err(e) => Err(format!("sample {i}: {e}")),
    };
    items.iter().enumerate().map(one).sum()
}

/// Clients ask again after a 5xx and give up after a 4xx, so whose fault it is matters.
fn unscored(place: usize, why: &Unscored) -> Response {
    let (status, why) = match why {
        Unscored::Sample(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
        Unscored::Server(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
    };
    fail(status, &format!("sample {place}: {why}"))
}

/// Too much waits: come back.
fn busy(why: &str) -> Response {
    let mut response = fail(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn reward(State(state): State<RewardState>, body: Body) -> Response {
    timed(state.clone(), "/v1/reward", async move {
        let body = read(&state, body).await?;
        let items = answers::own(&body).map_err(|e| fail(StatusCode::BAD_REQUEST, &e))?;
        let engine = state.engine();
        let group = body["completions"].is_array().then(|| items.clone()).zip(engine.policy.clone());
        // Before the reward is computed: who is sent away has cost nothing.
        let place = group.is_some().then(|| state.pacs.places.clone().try_acquire_owned()).transpose();
        let _place = place.map_err(|_| busy("too many requests for PACS wait already; try again"))?;
        let scores = score(&state, &engine, items).await?;
        let mut answer = json!({ "model": scores.model, "rewards": scores.rewards, "tokens": scores.tokens });
        if let Some(variances) = &scores.variances {
            answer["variances"] = json!(variances);
        }
        if let Some((group, policy)) = group {
            let logps = logps(&state, policy, group).await?;
            // Null where a ranking is constant or there is one completion.
            answer["pacs"] = json!(pacs(&scores.rewards, &logps));
            answer["logps"] = json!(logps);
        }
        Ok(Json(answer).into_response())
    })
    .await
}

/// The policy's log-probs of a prompt's completions, when it is the request's turn. A client that
/// leaves before takes its request with it.
async fn logps(state: &RewardState, policy: SharedPolicy, group: Vec<Item>) -> Result<Vec<f64>, Response> {
    let fault = |why: &str| fail(StatusCode::INTERNAL_SERVER_ERROR, why);
    let turn = state.pacs.turn.clone().acquire_owned().await.map_err(|_| fault("the server ends"))?;
    let work = move || {
        // Held until the model is done, also where nobody waits for it any more.
        let _turn = turn;
        let items: Vec<ScoreItem<'_>> = group.iter().map(Item::as_score_item).collect();
        let found = policy.logps(&items).map_err(|e| e.to_string())?;
        Ok(found.into_iter().map(|l| l.sum).collect::<Vec<f64>>())
    };
    let found = tokio::task::spawn_blocking(work).await;
    let logps: Result<_, String> = found.map_err(|_| fault("the policy failed; the server's log says more"))?;
    let logps = logps.map_err(|e| fail(StatusCode::UNPROCESSABLE_ENTITY, &e))?;
    match logps.iter().all(|l| l.is_finite()) {
        true => Ok(logps),
        false => Err(fault("the policy gives a log-prob that is no finite number")),
    }
}

/// Loads a newer model and swaps it in. Names a path on this machine, so only with a key.
async fn reload(State(state): State<RewardState>, body: Body) -> Response {
    timed(state.clone(), "/v1/reload", async move {
        if state.key.is_none() {
            return Err(fail(
                StatusCode::FORBIDDEN,
                "a server without a key is not told what to load; send it SIGUSR1 instead",
            ));
        }
        let body = read(&state, body).await?;
        let spec = body["reward"].as_str().map(str::to_owned);
        let loaded = tokio::task::spawn_blocking(move || state.load(spec.as_deref()));
        let identity = loaded.await.unwrap_or_else(|e| Err(LoadError::Failed(e.to_string())));
        let identity = identity.map_err(|error| match error {
            LoadError::Busy => fail(StatusCode::CONFLICT, &error.to_string()),
            LoadError::Failed(why) => fail(StatusCode::UNPROCESSABLE_ENTITY, &why),
        })?;
        Ok(Json(json!({ "model": identity })).into_response())
    })
    .await
}

async fn health(State(state): State<RewardState>) -> Json<Value> {
    Json(
        json!({ "status": "ok", "server": "gainsay", "model": state.engine().identity, "waiting": state.queue.waiting() }),
    )
}

async fn models(State(state): State<RewardState>) -> Json<Value> {
    Json(
        json!({ "object": "list", "data": [{ "id": state.engine().identity, "object": "model", "owned_by": "gainsay" }] }),
    )
}

async fn metrics(State(state): State<RewardState>) -> Response {
    let text = state.metrics.render(state.queue.waiting(), &state.engine().identity);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Names answers; nothing depends on it.
fn next_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
