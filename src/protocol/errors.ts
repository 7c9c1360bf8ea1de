/** Every `error.code` a client can see, with its default sentence. */
export const ERROR_MESSAGES = {
  invalid_json: 'The frame is not JSON.',
  invalid_message: 'The message is not valid.',
  unknown_type: 'There is no message of this type.',
  unauthorized: 'The token is not valid.',
  forbidden: 'The token does not allow this.',
  not_in_room: 'This connection is not a member of the room.',
  rate_limited: 'Too many messages; wait before the next one.',
  too_many_rooms: 'This connection is in as many rooms as it may be.',
  broker_unavailable: 'The message may not have been stored; repeat it with the same message_id.',
  internal: 'Something went wrong inside the gateway.',
} as const;

export type ErrorCode = keyof typeof ERROR_MESSAGES;

export interface FieldProblem {
  field: string;
  problem: string;
}

/** An expected failure of one client message; becomes one `error` event and never closes the connection. */
export class ProtocolError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string = ERROR_MESSAGES[code],
    readonly extra: { details?: FieldProblem[]; retry_after_ms?: number } = {},
  ) {
    super(message);
    this.name = 'ProtocolError';
  }

  /** The `error` event, `ref` first where the message had one. */
  toEvent(ref?: string | number): ErrorEvent {
    return {
      event: 'error',
      ...(ref === undefined ? {} : { ref }),
      code: this.code,
      message: this.message,
      ...this.extra,
    };
  }
}

export interface ErrorEvent {
  event: 'error';
  ref?: string | number;
  code: ErrorCode;
  message: string;
  details?: FieldProblem[];
  retry_after_ms?: number;
}
