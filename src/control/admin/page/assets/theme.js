// Runs before anything is drawn, so that no page flashes in the other theme.
const kept = localStorage.getItem('tollgate.theme');
if (kept === 'light' || kept === 'dark') document.documentElement.dataset.theme = kept;
