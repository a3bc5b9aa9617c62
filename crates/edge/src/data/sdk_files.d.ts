
/** A file of a bucket. */
export interface StoredFile {
  readonly bucket: string;
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly content_type: string;
  readonly etag: string;
  /** The id of the user who made it. */
  readonly owner: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly created_at: string;
  readonly updated_at: string;
}

export interface UploadOptions {
  /** The content type; by default the blob's own, else by the path's extension. */
  type?: string;
  /** What is noted about it. */
  metadata?: Record<string, unknown>;
  /** Called as the bytes arrive: at the beginning and the end, and after each piece of a large file. */
  onProgress?(progress: { sent: number; size: number }): void;
  /** Only if the file still has this ETag: else status 412. */
  ifMatch?: string;
  /** Only if there is no file at the path: else status 412. */
  ifAbsent?: boolean;
}

/** How a file is wanted; the first five for pictures alone. */
export interface View {
  /** The width in pixels. */
  w?: number;
  /** The height in pixels. */
  h?: number;
  /** `cover` cuts, `contain` adds a margin, `inside` keeps the whole picture and its proportions. */
  fit?: "cover" | "contain" | "inside";
  format?: "jpeg" | "png" | "webp";
  /** The quality of a jpeg, 1 to 100. */
  q?: number;
  /** To be kept and not shown, under this name or its own. */
  download?: string | boolean;
}

export interface SignOptions extends View {
  /** `get` by default. */
  method?: "get" | "put";
  /** Seconds; 600 by default, at most a week. */
  expiresIn?: number;
  /** For `put`: the largest file, in bytes. */
  maxSize?: number;
  /** For `put`: the content type. */
  type?: string;
}

export interface FilePage {
  files: StoredFile[];
  /** Missing on the last page. */
  cursor?: string;
}

export interface ListFilesOptions {
  /** What the paths begin with. */
  prefix?: string;
  /** Files of a page: 50 by default, at most 200. */
  limit?: number;
  cursor?: string;
}

export interface Bucket {
  /** Makes or replaces a file. Large ones go in pieces, and go on where they broke off. */
  upload(
    path: string,
    data: Blob | ArrayBuffer | ArrayBufferView<ArrayBuffer> | string,
    options?: UploadOptions,
  ): Promise<Pick<StoredFile, "bucket" | "path" | "size"> & Partial<StoredFile>>;
  download(path: string, view?: View): Promise<Blob>;
  list(options?: ListFilesOptions): Promise<FilePage>;
  /** Every file, page by page. */
  all(options?: ListFilesOptions): AsyncGenerator<StoredFile, void, void>;
  /** Where a file answers whom the rules let read it without a session; for others `sign`. */
  url(path: string, view?: View): string;
  /** An address that anybody may use until it ends, with the rights of who is signed in now. */
  sign(path: string, options?: SignOptions): Promise<string>;
  move(path: string, to: string): Promise<StoredFile>;
  copy(path: string, to: string): Promise<StoredFile>;
  remove(path: string, options?: { ifMatch?: string }): Promise<void>;
}
