/** Names like those of a room of `tenant` (`<tenant>:room-0`): none of them is one of `stranger:*`. */
export function roomDisguises(tenant: string, stranger: string): string[] {
  const room = `${tenant}:room-0`;
  return [
    room,
    room.toUpperCase(),
    room.replace(tenant, tenant.toUpperCase()),
    encodeURIComponent(room),
    room.replace(':', '%3A'),
    room.replace(':', '%253A'),
    room.replace(':', '\\u003a'),
    room.replace(':', '\uFF1A'),
    room.replace('e', '\u0435'),
    room.normalize('NFD').replace('e', 'e\u0301'),
    `${room}\u0000`,
    `${room}\u200B`,
    ` ${room}`,
    `${room} `,
    `${room}\n`,
    `/${room}`,
    `//${room}`,
    `./${room}`,
    `../${room}`,
    `x/../${room}`,
    `room:${room}`,
    `${tenant}`,
    `${tenant}:`,
    `${tenant}:*`,
    `*:room-0`,
    '*',
    '**',
    `?${room.slice(1)}`,
    `[${room[0]}]${room.slice(1)}`,
    `${stranger}`,
    `x${stranger}:room-0`,
    `${stranger.toUpperCase()}:room-0`,
    `${stranger} :${room}`,
    `${stranger}\u0000:${room}`,
    `${stranger}%3A*`,
    '',
    'x'.repeat(129),
    '__proto__',
    'constructor',
  ];
}

/** The same for users (`<tenant>-0`): none of them is one of `stranger-*`. */
export function userDisguises(tenant: string, stranger: string): string[] {
  const user = `${tenant}-0`;
  return [
    user,
    user.toUpperCase(),
    user.replace('-', '%2D'),
    user.replace('-', '\u2010'),
    user.replace('e', '\u0435'),
    `${user} `,
    ` ${user}`,
    `${user}\u200B`,
    `${user}\u0000`,
    `user:${user}`,
    `../${user}`,
    `${tenant}-*`,
    '*',
    '',
    `${stranger}`,
    `x${stranger}-0`,
    `${stranger.toUpperCase()}-0`,
    ` ${stranger}-0`,
    `${stranger}\u2010${user}`,
    '__proto__',
    '\u{1F600}'.repeat(129),
  ];
}

/** Rooms that are `stranger`'s own by its pattern, and sound like those of `tenant`. */
export function ownDisguises(stranger: string, tenant: string): string[] {
  const room = `${tenant}:room-0`;
  return [
    `${stranger}:${room}`,
    `${stranger}:../${room}`,
    `${stranger}:/${room}`,
    `${stranger}://${room}/..`,
  ];
}
