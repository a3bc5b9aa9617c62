
/** Ends what it came from. */
export interface Stop {
  (): void;
  /** Settles when it has begun; rejects where it is refused. */
  readonly ready: Promise<void>;
}

/** What a subscriber is told. A row comes into view with `insert` and goes out of it with `delete`, also by a change. */
export type RowEvent<R> =
  | { type: "insert" | "update"; row: R }
  | { type: "delete"; row: { id: string } }
  /** List the rows now: at the beginning, and where not everything that has changed is told. */
  | { type: "reset" }
  /** It is over: the app has refused it. */
  | { type: "error"; error: AppError };

/** A connection in a channel, as the others see it. */
export interface Member<S> {
  readonly id: string;
  readonly user: string | null;
  readonly state: S;
}

export interface Channel<S> {
  /** Settles when the page is in the channel; rejects where it may not be. */
  readonly ready: Promise<void>;
  /** Says something to the others in the channel. */
  send(event: string, data?: unknown): Promise<void>;
  /** Calls `listener` with what the others send. Returns what ends it. */
  on<D = unknown>(event: string, listener: (data: D, from: { id: string | null; user: string | null }) => void): () => void;
  readonly presence: {
    /** The others who show themselves. */
    readonly members: readonly Member<S>[];
    /** Shows this to the others, up to 2 KiB of JSON; nothing with null. */
    set(state: S | null): void;
    /** Calls `watcher` with the members whenever they change. Returns what ends it. */
    on(watcher: (members: readonly Member<S>[]) => void): () => void;
  };
  leave(): void;
}
