export function Lint() { return null; }
