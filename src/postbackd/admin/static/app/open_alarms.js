// How many alarms are open and not quiet: the number in the navigation.
import { signal, useEffect } from "./html.js";
import { useAsk } from "./api.js";

export const openAlarms = signal(0);

export function useOpenAlarms() {
  const alarms = useAsk("/alarms", { state: "raised", limit: 100 }, { every: 60 });
  const found = alarms.data.value;
  useEffect(() => { openAlarms.value = found ? found.items.filter((one) => !one.quiet).length : 0; }, [found]);
}
