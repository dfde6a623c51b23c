//! Every way in which the engine can refuse, with a stable code for programs and a sentence for people.

use crate::ablate::AblateError;
use crate::backend::DeviceError;
use crate::detect::DetectError;
use crate::forward::RunError;
use crate::hooks::PlanError;
use crate::ids::ParseIdError;
use crate::model::ModelError;
use crate::script::ScriptError;
use crate::tokenizer::TokenizerError;

/// Why the engine refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Prompt, head or edits.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A detector.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A measurement of what edits do.
    #[error(transparent)]
    Ablate(#[from] AblateError),
    /// A script in another language.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A name of a head or hook point.
    #[error(transparent)]
    ParseId(#[from] ParseIdError),
    /// A BOS was asked of a model that has none.
    #[error("this model names no BOS token; switch BOS off")]
    NoBos,
    /// The device that computes.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Too little memory on the device that computes.
    #[error("{}; shorten the prompt, or run on the CPU", too_long(*n_tokens))]
    TooLongForDevice {
        /// Tokens that would fit, estimated.
        n_tokens: usize,
    },
    /// The numbers are not finite: a damaged file, or a bug.
    #[error(
        "the model computed a value that is not a number; the file may be damaged: delete it from the cache and download it again"
    )]
    NotFinite,
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Plan(error) => error.into(),
            RunError::Device(error) => error.into(),
        }
    }
}

fn too_long(n_tokens: usize) -> String {
    format!("the graphics device has too little memory for this (about {n_tokens} tokens would fit)")
}

fn device_code(error: &DeviceError) -> &'static str {
    match error {
        DeviceError::Lost(_) => "device_lost",
        DeviceError::OutOfMemory { .. } => "device_memory",
        DeviceError::Refused(_) => "device_refused",
    }
}

fn plan_code(error: &PlanError) -> &'static str {
    match error {
        PlanError::EmptyPrompt => "empty_prompt",
        PlanError::PromptTooLong { .. } => "prompt_too_long",
        PlanError::UnknownHead { .. } => "unknown_head",
        PlanError::UnknownToken { .. } => "unknown_token",
        _ => "bad_request",
    }
}

impl Error {
    /// What went wrong on the device, if that was it.
    pub(crate) fn of_device(&self) -> Option<&DeviceError> {
        match self {
            Self::Device(error)
            | Self::Detect(DetectError::Device(error))
            | Self::Ablate(AblateError::Device(error)) => Some(error),
            _ => None,
        }
    }

    /// What happened on the device, if that was it, without what to do about it: for where that has been done.
    pub fn device_event(&self) -> Option<String> {
        match self {
            Self::TooLongForDevice { n_tokens } => Some(too_long(*n_tokens)),
            _ => self.of_device().map(DeviceError::event),
        }
    }

    /// Stable name for programs.
    pub fn code(&self) -> &'static str {
        if let Some(error) = self.of_device() {
            return device_code(error);
        }
        match self {
            Self::Model(ModelError::Truncated(_)) => "truncated",
            Self::Model(ModelError::Family(_) | ModelError::Dtype { .. }) => "unsupported_model",
            Self::Model(_) => "not_a_model",
            Self::Tokenizer(TokenizerError::Encode(_)) => "bad_prompt",
            Self::Tokenizer(_) => "bad_tokenizer",
            Self::Plan(error)
            | Self::Detect(DetectError::Plan(error))
            | Self::Ablate(AblateError::Plan(error)) => plan_code(error),
            Self::Ablate(AblateError::NothingToRecover { .. }) => "nothing_to_recover",
            Self::Ablate(AblateError::TooFewOthers { .. } | AblateError::NoHeads) => "too_few_heads",
            Self::Ablate(_) => "bad_request",
            Self::Script(_) => "no_script",
            Self::ParseId(_) => "unknown_head",
            Self::Detect(DetectError::PromptFillsContext { .. }) => "prompt_too_long",
            Self::Detect(DetectError::UnknownDetector { .. }) => "unknown_detector",
            Self::Detect(DetectError::ModelLacks(_) | DetectError::NoClasses) => "model_lacks",
            Self::Detect(
                DetectError::NothingToRead { .. } | DetectError::NoSequences | DetectError::NoPrompts,
            ) => "nothing_to_read",
            Self::Detect(_) => "bad_request",
            Self::NoBos => "no_bos",
            Self::TooLongForDevice { .. } | Self::Device(_) => "device_memory",
            Self::NotFinite => "not_finite",
        }
    }

    /// Whether something else can be tried without reloading the model.
    pub fn recoverable(&self) -> bool {
        !matches!(self, Self::NotFinite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_could_not_do_is_told_with_what_to_do_and_without() {
        let memory = DeviceError::OutOfMemory { held_bytes: 7 };
        let errors = [
            (Error::TooLongForDevice { n_tokens: 300 }, "device_memory"),
            (Error::Device(DeviceError::Lost("unplugged".to_owned())), "device_lost"),
            (Error::Detect(DetectError::Device(memory.clone())), "device_memory"),
            (Error::Ablate(AblateError::Device(DeviceError::Refused("no".to_owned()))), "device_refused"),
        ];
        for (error, code) in errors {
            let (told, event) = (error.to_string(), error.device_event().expect("of the device"));
            assert_eq!(error.code(), code);
            let rest = told.strip_prefix(&event).unwrap_or_else(|| panic!("{told:?} and {event:?}"));
            assert!(
                rest.starts_with("; ") && rest.contains("on the CPU") && !event.contains("CPU"),
                "{told}"
            );
        }
        assert_eq!(Error::NoBos.device_event(), None);
    }
}
