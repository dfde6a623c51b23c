//! The assignment on the page: its answers so far, the question that waits for a head, and what the reader may not change
//! and why.

use headlight_core::ids::HeadId;

use super::detection::DetectorMsg;
use super::{AppState, Msg, Remedy};
use crate::lesson::{AnswerSheet, Answered, Lesson, Lock, MAX_ANSWER};

/// An assignment at work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// What is asked; none on an ordinary page.
    pub lesson: Option<Lesson>,
    /// The answer to each question, empty where there is none yet.
    pub answers: Vec<String>,
    /// The question that the next click on a head answers.
    pub asking: Option<usize>,
}

impl Assignment {
    /// Takes a link's assignment; answers stay where the questions do.
    pub fn open(&mut self, lesson: Option<Lesson>) {
        let questions = |lesson: &Option<Lesson>| lesson.as_ref().map(|lesson| lesson.questions.clone());
        if questions(&self.lesson) != questions(&lesson) {
            let n_questions = lesson.as_ref().map_or(0, |lesson| lesson.questions.len());
            self.answers = vec![String::new(); n_questions];
            self.asking = None;
        }
        self.lesson = lesson;
    }

    /// Answers the question that waits for a head.
    pub(super) fn take_head(&mut self, head: HeadId) {
        if let Some(answer) = self.asking.take().and_then(|index| self.answers.get_mut(index)) {
            *answer = head.to_string();
        }
    }
}

/// What happened to an assignment.
#[derive(Clone, Debug, PartialEq)]
pub enum LessonMsg {
    /// A question was answered.
    Answer(usize, String),
    /// A question waits for a head, or none does any more.
    Ask(Option<usize>),
}

/// Changes an assignment.
pub fn update(assignment: &mut Assignment, msg: LessonMsg) {
    match msg {
        LessonMsg::Answer(index, text) => {
            if let Some(answer) = assignment.answers.get_mut(index) {
                *answer = text.chars().take(MAX_ANSWER).collect();
            }
        }
        LessonMsg::Ask(index) => {
            assignment.asking = index.filter(|&index| index < assignment.answers.len());
        }
    }
}

/// What a reader may be kept from changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// The model.
    Model,
    /// The prompt and its BOS.
    Prompt,
    /// Edits, detectors and their settings.
    View,
}

impl AppState {
    /// Why something cannot be changed here; none where it can.
    pub fn why_fixed(&self, what: Fixed) -> Option<&'static str> {
        if self.embed.as_ref().is_some_and(|flags| flags.is_read_only) {
            return Some("To look at: whoever embedded this view keeps it as it is.");
        }
        let lock = self.assignment.lesson.as_ref().map(|lesson| &lesson.lock)?;
        match what {
            Fixed::Model if lock.contains(&Lock::Model) => Some("The assignment is about this model."),
            Fixed::Prompt if lock.contains(&Lock::Prompt) => Some("The assignment is about this prompt."),
            _ => None,
        }
    }

    /// Whether the user's gesture is one that cannot be made here.
    pub(super) fn is_refused(&self, msg: &Msg) -> bool {
        let what = match msg {
            Msg::ChooseModel(_) | Msg::DeleteCached(_) => Fixed::Model,
            Msg::Typed(_)
            | Msg::SetPrompt(_)
            | Msg::SetBos(_)
            | Msg::Remedy(Remedy::CutPrompt { .. } | Remedy::BosOff) => Fixed::Prompt,
            Msg::SetLens(_) | Msg::Edit(_) | Msg::Detector(DetectorMsg::Set(_)) => Fixed::View,
            _ => return false,
        };
        self.why_fixed(what).is_some()
    }

    /// The answers as they are, for a file.
    pub fn answer_sheet(&self, link: String, time: String) -> Option<AnswerSheet> {
        let lesson = self.assignment.lesson.as_ref()?;
        let pairs = lesson.questions.iter().zip(&self.assignment.answers);
        let answers = pairs.map(|(question, answer)| Answered {
            ask: question.ask.clone(),
            kind: question.kind,
            answer: answer.clone(),
        });
        Some(AnswerSheet {
            title: lesson.title.clone(),
            answers: answers.collect(),
            link,
            time,
            model: self.model.as_ref().map_or_else(String::new, |model| model.id.clone()),
            model_sha256: self.model.as_ref().map_or_else(String::new, |model| model.info.sha256.clone()),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::EmbedFlags;
    use crate::lesson::{AnswerKind, Question};
    use crate::link::Link;
    use crate::models::manifest;
    use crate::state::edits::EditMsg;
    use crate::state::{ThemeChoice, update as update_page};

    fn lesson(lock: &[Lock]) -> Lesson {
        let questions = vec![
            Question { ask: "Which?".to_owned(), kind: AnswerKind::Head, choices: Vec::new() },
            Question { ask: "Why?".to_owned(), ..Question::default() },
        ];
        Lesson {
            title: "Look".to_owned(),
            text: String::new(),
            questions,
            lock: lock.iter().copied().collect(),
        }
    }

    fn page_of(lock: &[Lock]) -> AppState {
        let mut state = AppState::default();
        let link = Link { lesson: Some(lesson(lock)), ..Link::default() };
        update_page(&mut state, Msg::Open(Box::new(link)));
        state
    }

    #[test]
    fn what_is_locked_does_not_change_and_the_rest_does() {
        let mut state = page_of(&[Lock::Prompt]);
        let prompt = state.prompt.clone();
        assert!(state.why_fixed(Fixed::Prompt).is_some_and(|why| why.contains("assignment")));
        assert_eq!(state.why_fixed(Fixed::Model), None);
        for msg in [Msg::Typed("other".to_owned()), Msg::SetPrompt("other".to_owned())] {
            assert_eq!(update_page(&mut state, msg), Vec::new());
        }
        assert_eq!(state.prompt, prompt);
        let source = manifest().remove(1).source;
        assert!(!update_page(&mut state, Msg::ChooseModel(source.clone())).is_empty());
        let mut state = page_of(&[Lock::Model]);
        assert_eq!(update_page(&mut state, Msg::ChooseModel(source)), Vec::new());
        update_page(&mut state, Msg::Typed("other".to_owned()));
        assert_eq!(state.prompt, "other");
        // Another link lifts it.
        update_page(&mut state, Msg::Open(Box::default()));
        assert_eq!((state.why_fixed(Fixed::Model), state.assignment.clone()), (None, Assignment::default()));
    }

    #[test]
    fn a_read_only_embed_is_looked_at() {
        let flags = EmbedFlags { is_read_only: true, ..EmbedFlags::default() };
        let mut state = AppState { embed: Some(flags), ..AppState::default() };
        let before = state.link();
        let changes = [
            Msg::Typed("other".to_owned()),
            Msg::Edit(EditMsg::Toggle(HeadId::new(0, 0))),
            Msg::SetLens(crate::view_model::lens::Lens::Sweep),
            Msg::ChooseModel(manifest().remove(1).source),
        ];
        for msg in changes {
            assert_eq!(update_page(&mut state, msg.clone()), Vec::new(), "{msg:?}");
        }
        assert_eq!(state.link(), before);
        update_page(&mut state, Msg::SetTheme(ThemeChoice::Fixed(crate::view_model::colour::Theme::Dark)));
        update_page(&mut state, Msg::ToggleToken(2));
        assert_eq!(state.held_token, Some(2));
        // The host may: what it opens is what its reader looks at.
        update_page(&mut state, Msg::Open(Box::new(Link { prompt: "host's".to_owned(), ..Link::default() })));
        assert_eq!(state.prompt, "host's");
    }

    #[test]
    fn answers_are_kept_while_the_questions_are() {
        let mut state = page_of(&[]);
        update_page(&mut state, Msg::Lesson(LessonMsg::Answer(1, "because".to_owned())));
        update_page(&mut state, Msg::Lesson(LessonMsg::Answer(9, "nobody asked".to_owned())));
        update_page(&mut state, Msg::Lesson(LessonMsg::Ask(Some(0))));
        state.assignment.take_head(HeadId::new(1, 0));
        assert_eq!(state.assignment.answers, ["L1H0", "because"]);
        assert_eq!(state.assignment.asking, None);
        let link = state.link();
        assert_eq!(link.lesson, Some(lesson(&[])));
        update_page(&mut state, Msg::Open(Box::new(link)));
        assert_eq!(state.assignment.answers, ["L1H0", "because"]);
        let sheet = state.answer_sheet("a link".to_owned(), "now".to_owned()).expect("an assignment");
        assert_eq!((sheet.answers.len(), sheet.answers[0].answer.as_str()), (2, "L1H0"));
        let long = "x".repeat(MAX_ANSWER + 5);
        update_page(&mut state, Msg::Lesson(LessonMsg::Answer(1, long)));
        assert_eq!(state.assignment.answers[1].len(), MAX_ANSWER);
    }
}
