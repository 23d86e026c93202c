//! Many annotators at once: no answer lost, none doubled, no item over its overlap. 1,800 answers, or
//! as many as `GAINSAY_TEST_ANSWERS` says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gainsay_core::record::Answer;
use gainsay_server::annotate::store::{Store, Submitted};

use crate::support::{databases, filled, person, says};

/// Answers until nothing is left; every seventh is skipped, every ninth is taken back first.
async fn work_off(store: Arc<Store>, id: i64, name: String) -> HashSet<String> {
    let mut recorded = HashSet::new();
    let mut turn = 0usize;
    while let Some(work) = store.next(id).await.unwrap() {
        turn += 1;
        let answer = [Answer::First, Answer::Second, Answer::Tie, Answer::BothBad][(turn + id as usize) % 4];
        let answer = if turn % 7 == 6 { Answer::Skip } else { answer };
        let key = work.item.task.id().to_owned();
        let said = store.answer(id, &name, work.item.number, &work.ticket, &says(answer), None).await.unwrap();
        assert_eq!(said, Submitted::Recorded);
        if answer != Answer::Skip {
            assert!(recorded.insert(key.clone()), "{name} got {key} twice");
        }
        if turn.is_multiple_of(9) && answer != Answer::Skip {
            store.undo(id, &name).await.unwrap();
            recorded.remove(&key);
        }
    }
    recorded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_annotators_on_two_servers() {
    for database in databases().await {
        let answers: usize = std::env::var("GAINSAY_TEST_ANSWERS").map_or(1_800, |n| n.parse().unwrap());
        let (items, overlap, people) = (answers.div_ceil(3), 3i64, 50usize);
        let store = filled(&database, items, overlap).await;
        // A second server on the same database.
        let other = Arc::new(Store::open(&database.db).await.unwrap());
        let mut crowd = Vec::new();
        for i in 0..people {
            let name = format!("person {i:02}");
            let (id, _) = person(&store, &name).await;
            let server = if i % 2 == 0 { store.clone() } else { other.clone() };
            crowd.push((id, name.clone(), tokio::spawn(work_off(server, id, name))));
        }
        let mut acknowledged: HashMap<String, HashSet<String>> = HashMap::new();
        let mut present = Vec::new();
        for (id, name, work) in crowd {
            acknowledged.insert(name.clone(), work.await.unwrap());
            present.push((id, name));
        }
        // Who skips the last items frees places after others have left: they look once more.
        for (id, name) in present {
            let late = work_off(store.clone(), id, name.clone()).await;
            acknowledged.entry(name).or_default().extend(late);
        }
        let numbers: HashMap<i64, String> =
            store.items().await.unwrap().into_iter().map(|i| (i.number, i.task.id().to_owned())).collect();
        let mut of_item: HashMap<i64, i64> = HashMap::new();
        let mut there: HashMap<String, HashSet<String>> = HashMap::new();
        for vote in store.votes().await.unwrap().into_iter().filter(|v| !v.given.response.is_skip()) {
            *of_item.entry(vote.item).or_default() += 1;
            assert!(there.entry(vote.annotator).or_default().insert(numbers[&vote.item].clone()));
        }
        assert!(of_item.values().all(|n| *n <= overlap));
        for (name, items) in acknowledged {
            assert_eq!(items, there.remove(&name).unwrap_or_default(), "{name}");
        }
        assert!(there.is_empty());
        // All places are taken: no item was skipped by all fifty.
        assert_eq!(of_item.values().sum::<i64>(), items as i64 * overlap);
        let progress = store.progress(1).await.unwrap();
        assert_eq!((progress.answered, progress.wanted), (items as i64 * overlap, items as i64 * overlap));
    }
}
