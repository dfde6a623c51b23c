/** A request as it is written: the prompt is needed, everything else has a default. */
export type Args<T, Needed extends PropertyKey = "text" | "ids"> = T extends unknown
  ? Partial<T> & Pick<T, Extract<Needed, keyof T>>
  : never;

/** A view: what differs from the default. `headlight.state()` gives it, links hold it. */
export type State = Partial<Omit<Link, "model" | "lab" | "detectors" | "edits" | "lesson">> & {
  edits?: Array<Partial<PlacedEdit> & Pick<PlacedEdit, "edit">>;
  lesson?: (Partial<Omit<Lesson, "questions">> & { questions?: Array<Partial<Question> & Pick<Question, "ask">> }) | null;
  model?: Partial<LinkedModel>;
  lab?: Partial<LabSettings>;
  detectors?: Partial<Settings>;
};

/** What promises are rejected with. */
export interface HeadlightError extends Error {
  code: string;
  recoverable: boolean;
  detail: string | null;
}

/** Methods of window.headlight on the page; of a <headlight-view>, and of an embed by postMessage. */
export interface HeadlightMethods {
  models(): Promise<Array<ManifestModel>>;
  load(args: { model: string; backend?: BackendChoice }): Promise<ModelInfo>;
  tokenize(text: string, options?: { bos?: BosPolicy }): Promise<TokensReport>;
  run(args: Args<RunRequest>): Promise<RunReport>;
  patterns(args: Args<RunRequest> & { head: HeadId }): Promise<PatternReport>;
  /** Many draws, and long sweeps, are shared by `n_workers` workers on the CPU; unless given, by as many as was chosen on the page, or
   * as the machine bears, where that is worth it. The numbers are the same, bit for bit. */
  detect(args: Args<DetectRequest, "detector"> & { n_workers?: number }): Promise<DetectReport>;
  detectors(): Promise<Array<Doc>>;
  sweep(args: Args<SweepRequest> & { n_workers?: number }): Promise<SweepReport>;
  controls(args: Args<ControlsRequest, "text" | "ids" | "interventions">): Promise<ControlsReport>;
  patch(args: Args<PatchRequest>): Promise<PatchReport>;
  dla(args: Args<DlaRequest>): Promise<DlaReport>;
  lens(args: Args<LensRequest>): Promise<LensReport>;
  ov(args: Args<OvRequest, "text" | "ids" | "head" | "source_pos">): Promise<OvReport>;
  generate(args: Args<GenerateRequest>): Promise<GenerateReport>;
  /** Python that makes a run again in another library. */
  script(args: Args<ScriptRequest, "library">): Promise<string>;
  bench(args?: { prefill?: Array<number>; repeats?: number }): Promise<BenchReport>;
  /** Stops the view and the load that are under way. */
  cancel(): Promise<null>;
  /** The view on the page. */
  state(): Promise<State>;
  /** Shows a view; resolves to what is then shown. Fields left out are at their defaults. */
  setState(state: State): Promise<State>;
  /** The address of the view, with the numbers that it shows now. */
  link(): Promise<string>;
}

export interface Events {
  /** The view was changed. */
  state: State;
  /** A prompt was run, edits in force. */
  view: RunReport;
  /** Something went wrong. */
  error: ErrorReport;
}

/** window.headlight, on the page itself. */
export interface Headlight extends HeadlightMethods {
  version: string;
  /** Resolves when a model is loaded. */
  ready: Promise<ModelInfo>;
  /** Listens; returns what ends it. */
  on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void;
}

/** The element of headlight-view.js. */
export interface HeadlightView extends HTMLElement, HeadlightMethods {
  /** Loads the frame now, visible or not, and begins to compute. */
  start(): Promise<null>;
  /** Resolves when a model is loaded. */
  ready(): Promise<ModelInfo>;
}

declare global {
  interface Window {
    headlight: Headlight;
  }
  interface HTMLElementTagNameMap {
    "headlight-view": HeadlightView;
  }
  interface HTMLElementEventMap {
    "headlight-ready": CustomEvent<ModelInfo>;
    "headlight-state": CustomEvent<State>;
    "headlight-view": CustomEvent<RunReport>;
    "headlight-error": CustomEvent<ErrorReport>;
  }
}
