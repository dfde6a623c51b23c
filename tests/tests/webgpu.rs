//! The WebGPU backend against the CPU, on whatever adapter this machine has: every hook point, every detector, and what happens
//! when a device computes wrong numbers or goes away. The tests of edits, restarts, patching and continuations run on it as
//! they are (`cargo xtask test` calls them twice).

use std::rc::Rc;

use headlight_app::models::find;
use headlight_core::ablate::sweep::SweepSpec;
use headlight_core::backend::webgpu::{Wanted, WebGpu};
use headlight_core::backend::{Device, Precision};
use headlight_core::detect::DOCS;
use headlight_core::engine::{Engine, Job, Loading};
use headlight_core::error::Error;
use headlight_core::hooks::{CaptureSet, Edit, LogitPositions, RunPlan};
use headlight_core::ids::HeadId;
use headlight_core::report::{BosPolicy, DetectRequest, Prompt, RunRequest, SweepRequest};
use headlight_tests::tiny::TinyConfig;
use headlight_tests::{bundled_file, max_difference, smollm2_loading, tolerance, web_gpu};

fn bundled(model: &str) -> Loading {
    let file = |name| bundled_file(model, name);
    let shards = vec![file("model.safetensors")];
    Loading::from_folder(&file("config.json"), &file("tokenizer.json"), shards, model).expect("opens")
}

/// The model on the CPU and on a graphics device.
fn both(loading: Loading) -> (Engine, Engine) {
    let mut engines = loading.onto(vec![Device::default(), web_gpu()]).finish_all().expect("loads");
    let gpu = engines.pop().expect("two devices");
    (engines.pop().expect("two devices"), gpu)
}

#[test]
fn every_hook_point_agrees() {
    let tiny = TinyConfig { n_layers: 3, ..TinyConfig::SMALL };
    let prompts: [(Loading, Vec<u32>); 3] = [
        (tiny.loading(1), (0..40).map(|i| i * 7 % 50).collect()),
        (bundled("induction-2l"), (0..60).map(|i| 20 + i * 13 % 29).collect()),
        (bundled("successor-2l"), (0..30).map(|i| 3 + i * 5 % 40).collect()),
    ];
    for (loading, ids) in prompts {
        let (cpu, gpu) = both(loading);
        let has_mlp = cpu.info().d_mlp > 0;
        let plan = RunPlan {
            capture: CaptureSet::all(cpu.config()),
            pattern_heads: vec![HeadId::new(1, 1)],
            entropy: true,
            n_argmax_rows: 3,
            logits: LogitPositions::All,
            ..RunPlan::default()
        };
        let [wanted, got] = [&cpu, &gpu].map(|engine| engine.forward(&ids, &plan).expect("runs"));
        let mut n_points = 0;
        for point in plan.capture.iter() {
            let [wanted, got] =
                [&wanted, &got].map(|output| output.activations.get(point).expect("kept").clone());
            assert_eq!(got.shape, wanted.shape, "{point}");
            // Masked scores are minus infinity in both.
            let finite = |tensor: &[f32]| -> Vec<f32> {
                tensor.iter().map(|v| if *v == f32::NEG_INFINITY { -1e9 } else { *v }).collect()
            };
            let difference = max_difference(&finite(&got.data), &finite(&wanted.data));
            let largest = wanted.data.iter().filter(|v| v.is_finite()).fold(1.0f32, |m, v| m.max(v.abs()));
            assert!(
                difference <= tolerance::DEVICE * largest,
                "{point} differs by {difference} of {largest}"
            );
            n_points += 1;
        }
        assert!(n_points > if has_mlp { 30 } else { 20 });
        let difference = max_difference(&got.logits.data, &wanted.logits.data);
        assert!(difference < tolerance::REAL_LOGITS, "logits differ by {difference}");
        assert_eq!(got.activations.argmax_keys(), wanted.activations.argmax_keys());
        let nats = |table: &[Vec<f32>]| table.concat();
        let [wanted, got] = [&wanted, &got].map(|output| nats(output.activations.entropy_nats()));
        assert!(max_difference(&got, &wanted) < 1e-3);
    }
}

#[test]
fn every_detector_agrees() {
    let (cpu, gpu) = both(bundled("successor-2l"));
    let mut n_agreed = 0;
    for doc in &DOCS {
        let request = DetectRequest { detector: doc.id.to_owned(), ..DetectRequest::default() };
        // What the model cannot be asked it cannot be asked on either.
        let (wanted, got) = match (cpu.detect(&request), gpu.detect(&request)) {
            (Ok(wanted), Ok(got)) => (wanted, got),
            (Err(wanted), Err(got)) => {
                assert_eq!(wanted.to_string(), got.to_string(), "{}", doc.id);
                continue;
            }
            (wanted, got) => panic!("{}: {:?} against {:?}", doc.id, wanted.err(), got.err()),
        };
        let difference = max_difference(&got.scores.concat(), &wanted.scores.concat());
        assert!(difference < 1e-4, "{}: a score differs by {difference}", doc.id);
        assert_eq!(got.found, wanted.found, "{}", doc.id);
        n_agreed += 1;
    }
    assert!(n_agreed >= 10, "only {n_agreed} detectors ran");
}

#[test]
fn the_self_test_passes_a_right_device_and_catches_a_wrong_kernel() {
    let (cpu, gpu) = both(bundled("successor-2l"));
    let golden = find("successor-2l").and_then(|model| model.source.golden).expect("it has golden logits");
    let right = pollster::block_on(gpu.self_test(Some(&cpu), Some(&golden))).expect("runs");
    assert!(right.passed(), "{right:?}");
    let broken =
        pollster::block_on(WebGpu::open(Wanted { software: true, broken: true, ..Wanted::default() }))
            .expect("opens");
    let broken = bundled("successor-2l").onto(vec![Device::WebGpu(broken.into())]).finish().expect("loads");
    for (cpu, golden) in [(Some(&cpu), None), (None, Some(&golden))] {
        let wrong = pollster::block_on(broken.self_test(cpu, golden)).expect("runs");
        assert!(!wrong.passed(), "{wrong:?}");
    }
}

#[test]
fn what_a_pass_runs_can_be_compiled_before_it() {
    let wanted = Wanted { software: true, ..Wanted::default() };
    let gpu = Rc::new(pollster::block_on(WebGpu::open(wanted)).expect("opens"));
    let _engine =
        bundled("successor-2l").onto(vec![Device::WebGpu(Rc::clone(&gpu))]).finish().expect("loads");
    let mut left = Vec::new();
    while let Some(n_left) = pollster::block_on(gpu.compile_next()).expect("compiles") {
        left.push(n_left);
    }
    assert!(left.len() > 5 && left.iter().rev().copied().eq(0..left.len()), "{left:?}");
}

#[test]
fn smollm2s_logits_agree_with_the_cpus() {
    let (cpu, gpu) = both(smollm2_loading());
    let text = "When Mary and John went to the store, John gave a drink to".to_owned();
    let request = RunRequest { prompt: Prompt::Text(text), top: 20, ..RunRequest::default() };
    let [wanted, got] = [&cpu, &gpu].map(|engine| engine.run(&request).expect("runs"));
    let ids = |report: &headlight_core::report::RunReport| -> Vec<u32> {
        report.logits_top.iter().map(|token| token.id).collect()
    };
    assert_eq!(ids(&got), ids(&wanted));
    let logits = |report: &headlight_core::report::RunReport| -> Vec<f32> {
        report.logits_top.iter().map(|token| token.logit).collect()
    };
    let difference = max_difference(&logits(&got), &logits(&wanted));
    assert!(difference < tolerance::REAL_LOGITS, "logits differ by {difference}");
    assert!(max_difference(&got.nll_nats, &wanted.nll_nats) < tolerance::REAL_NATS);
    assert!(got.provenance.engine.starts_with("webgpu-f32 ("), "{}", got.provenance.engine);
}

/// A device of its own, with a handle to lose it by.
fn lost_at_will() -> (Device, Rc<WebGpu>) {
    let wanted = Wanted { software: true, ..Wanted::default() };
    let gpu = Rc::new(pollster::block_on(WebGpu::open(wanted)).expect("opens"));
    (Device::WebGpu(Rc::clone(&gpu)), gpu)
}

#[test]
fn a_sweep_goes_on_where_its_device_was_lost() {
    let cpu = TinyConfig { n_layers: 12, ..TinyConfig::SMALL }.loading(1).finish().expect("loads");
    for edit in [Edit::Zero {}, Edit::Mean { over: None }] {
        let request = SweepRequest {
            prompt: Prompt::Ids((0..40).map(|i| i * 7 % 50).collect()),
            bos: BosPolicy::Auto,
            spec: SweepSpec { edit, ..SweepSpec::default() },
            precision: Precision::Exact,
        };
        let (device, gpu) = lost_at_will();
        let engine = cpu.on(device);
        let mut job = engine.start_sweep(&request).expect("starts");
        while job.progress().0 == 0 {
            assert!(
                !pollster::block_on(job.step(&engine)).expect("works"),
                "the sweep ends before it is lost"
            );
        }
        gpu.lose();
        let error = loop {
            match pollster::block_on(job.step(&engine)) {
                Ok(done) => assert!(!done, "the loss is seen"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "device_lost", "{error}");
        let n_done = job.progress().0;
        let (device, _gpu) = lost_at_will();
        let again = cpu.on(device);
        assert!(job.go_on_with(&again), "there is something to go on with");
        assert_eq!(job.progress().0, n_done);
        let wanted = cpu.start_sweep(&request).expect("starts").complete(&cpu).expect("works");
        let got = job.complete(&again).expect("works");
        let difference = max_difference(&got.effects.concat(), &wanted.effects.concat());
        assert!(difference < tolerance::REAL_EFFECTS, "an effect differs by {difference}");
        assert_eq!(got.effects.concat().len(), wanted.effects.concat().len());
    }
}

#[test]
fn a_model_taken_to_a_device_is_the_one_loaded_there() {
    for loading in [bundled("successor-2l"), smollm2_loading()] {
        let (cpu, loaded) = both(loading);
        let taken = cpu.on(web_gpu());
        let ids: Vec<u32> = (0..12).map(|i| 3 + i * 5 % 40).collect();
        let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
        let [loaded, taken] =
            [&loaded, &taken].map(|engine| engine.forward(&ids, &plan).expect("runs").logits);
        assert_eq!(loaded.data, taken.data);
    }
}

#[test]
fn a_prompt_too_long_for_the_device_is_told_what_fits() {
    let cpu = TinyConfig { n_layers: 3, ..TinyConfig::SMALL }.loading(1).finish().expect("loads");
    let wanted = Wanted { software: true, memory_bytes: Some(1 << 20), ..Wanted::default() };
    let gpu = pollster::block_on(WebGpu::open(wanted)).expect("opens");
    let engine = cpu.on(Device::WebGpu(gpu.into()));
    let request = |n_tokens: usize| RunRequest {
        prompt: Prompt::Ids((0..n_tokens as u32).map(|i| i * 7 % 50).collect()),
        ..RunRequest::default()
    };
    let n_ctx = engine.info().n_ctx;
    let error = engine.run(&request(n_ctx)).expect_err("too long");
    let Error::TooLongForDevice { n_tokens } = error else { panic!("{error}") };
    assert_eq!(error.code(), "device_memory");
    assert!((8..n_ctx).contains(&n_tokens), "{n_tokens} of {n_ctx}");
    let difference = |n_tokens| {
        let [got, wanted] = [&engine, &cpu].map(|engine| engine.run(&request(n_tokens)).expect("fits"));
        max_difference(&got.nll_nats, &wanted.nll_nats)
    };
    // Also after it was short of memory.
    assert!(difference(n_tokens) < tolerance::REAL_NATS);
}
