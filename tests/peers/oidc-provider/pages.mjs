// The look of the login and consent pages.

/** One page with one form that posts to itself. `form` is trusted HTML. */
export function page(title, form) {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)} · test provider</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 sans-serif; max-width: 24rem; margin: 4rem auto; padding: 0 1rem }
  label, input { display: block; width: 100%; box-sizing: border-box }
  input { margin-bottom: 1rem; padding: .4rem }
</style>
<h1>${escapeHtml(title)}</h1>
<form method="post">${form}
</form>
</html>
`;
}

/** Text made harmless inside an element or a quoted attribute. */
export function escapeHtml(text) {
  return String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
