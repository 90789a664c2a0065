// The alarms that are open and not quiet, urgent ones first: how many is the number in the navigation.
// Simulated data are not watched by alarms.
import { computed, signal, useEffect } from "./html.js";
import { dataSet, useAsk } from "./api.js";

export const alarmsOpen = signal([]);
export const openAlarms = computed(() => alarmsOpen.value.length);

export function useOpenAlarms() {
  const alarms = useAsk(dataSet.value === "demo" ? null : "/alarms", { state: "raised", limit: 100 }, { every: 60 });
  const found = dataSet.value === "demo" ? null : alarms.data.value;
  useEffect(() => { alarmsOpen.value = (found?.items ?? []).filter((one) => !one.quiet).sort((one, other) => other.urgent - one.urgent); }, [found]);
}
