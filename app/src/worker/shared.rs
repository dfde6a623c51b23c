//! What several pages that use one worker have in common: a model that one of them has loaded is the others' too. Everything
//! else (runs, sweeps, what is under way) is each page's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::session::Session;
use super::{RequestId, cancel, post, within_ms};
use crate::protocol::{BackendChoice, ErrorReport, ModelSource};

/// Between two looks at whether another page has loaded the model, milliseconds.
const LOOK_MS: i32 = 40;

thread_local! {
    /// Each connection's session.
    static SESSIONS: RefCell<BTreeMap<u32, Rc<RefCell<Session>>>> = RefCell::default();
    /// Loads under way.
    static LOADING: RefCell<Vec<Loading>> = RefCell::default();
}

/// A load under way.
struct Loading {
    id: RequestId,
    source: ModelSource,
    backend: BackendChoice,
    /// Loads of other pages that wait for it.
    followers: Vec<RequestId>,
}

/// The loads of other pages that wait for this one, and are told how far it is.
pub fn followers_of(id: RequestId) -> Vec<RequestId> {
    LOADING.with_borrow(|loading| {
        let own = loading.iter().find(|loading| loading.id == id);
        own.map(|own| own.followers.clone()).unwrap_or_default()
    })
}

/// A load's place among those under way, for as long as it is held.
pub struct Held(RequestId);

impl Drop for Held {
    fn drop(&mut self) {
        LOADING.with_borrow_mut(|loading| loading.retain(|other| other.id != self.0));
    }
}

/// Whether another page had a model.
pub enum TakeOver {
    /// It did, and the model is this page's too.
    Done,
    /// None has it: it is to be loaded, and counts as under way for as long as this is held.
    ToLoad(Held),
}

/// The session of a connection; a new one for a new connection.
pub fn session_of(connection: u32) -> Rc<RefCell<Session>> {
    let new = || Rc::new(RefCell::new(Session::of(connection)));
    SESSIONS.with_borrow_mut(|sessions| Rc::clone(sessions.entry(connection).or_insert_with(new)))
}

/// A page is gone: its requests end, and what it alone used is freed.
pub fn close(connection: u32) {
    cancel::close(connection);
    post::close(connection);
    SESSIONS.with_borrow_mut(|sessions| sessions.remove(&connection));
}

/// Takes a model over from another page that has loaded it from the same place for the same engine; waits for one that is about to.
/// Fails when the request is cancelled meanwhile.
pub async fn take_over(
    session: &RefCell<Session>,
    id: RequestId,
    source: &ModelSource,
    backend: BackendChoice,
) -> Result<TakeOver, ErrorReport> {
    loop {
        let others = SESSIONS.with_borrow(|sessions| sessions.values().cloned().collect::<Vec<_>>());
        let is_its =
            |other: &&Rc<RefCell<Session>>| other.borrow().has_loaded(id.connection, source, backend);
        if let Some(other) = others.iter().find(is_its) {
            session.borrow_mut().adopt(&other.borrow());
            return Ok(TakeOver::Done);
        }
        let is_under_way = LOADING.with_borrow_mut(|loading| {
            let leader = loading.iter_mut().find(|other| {
                other.id.connection != id.connection && other.source == *source && other.backend == backend
            });
            let Some(leader) = leader else {
                let (source, followers) = (source.clone(), Vec::new());
                loading.push(Loading { id, source, backend, followers });
                return false;
            };
            if !leader.followers.contains(&id) {
                leader.followers.push(id);
            }
            true
        });
        if !is_under_way {
            return Ok(TakeOver::ToLoad(Held(id)));
        }
        within_ms(LOOK_MS, std::future::pending::<()>()).await;
        cancel::check(id)?;
    }
}

#[cfg(test)]
mod tests {
    use wasm_bindgen::prelude::*;
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};
    use web_sys::{MessageChannel, MessageEvent};

    use super::*;
    use crate::protocol::{Event, ModelFormat, Stage};
    use crate::worker::post::Reporter;

    wasm_bindgen_test_configure!(run_in_dedicated_worker);

    #[wasm_bindgen_test]
    async fn a_page_that_waits_for_anothers_load_hears_how_far_it_is_and_loads_when_that_ends() {
        let [leader, follower] = [8, 9].map(|connection| RequestId { connection, number: connection + 50 });
        let source = ModelSource {
            id: "m".to_owned(),
            format: ModelFormat::Gguf,
            sha256: None,
            size_bytes: None,
            urls: Vec::new(),
            golden: None,
        };
        let channel = MessageChannel::new().expect("workers have message channels");
        post::open(follower.connection, channel.port1());
        let heard = Rc::new(RefCell::new(Vec::new()));
        let all = Rc::clone(&heard);
        let listener = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            all.borrow_mut().push(serde_wasm_bindgen::from_value::<Event>(event.data()).expect("an event"));
        });
        channel.port2().set_onmessage(Some(listener.as_ref().unchecked_ref()));
        let sessions = [leader, follower].map(|id| session_of(id.connection));
        let first = take_over(&sessions[0], leader, &source, BackendChoice::Cpu).await;
        let Ok(TakeOver::ToLoad(held)) = first else { panic!("nobody has the model") };
        let late = async {
            within_ms(3 * LOOK_MS, std::future::pending::<()>()).await;
            Reporter::new(leader, Stage::Download).report(5, Some(10));
            within_ms(3 * LOOK_MS, std::future::pending::<()>()).await;
            // It fails, or is stopped.
            drop(held);
        };
        let waiting = take_over(&sessions[1], follower, &source, BackendChoice::Cpu);
        let ((), second) = futures::future::join(late, waiting).await;
        assert!(matches!(second, Ok(TakeOver::ToLoad(_))), "the next one's turn");
        let heard = heard.borrow();
        assert!(
            matches!(&heard[..], [Event::Progress { id, progress }] if *id == follower.number && progress.done == 5),
            "{heard:?}"
        );
    }
}
