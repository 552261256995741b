// An address that leads nowhere.
import { html } from "../html.js";
import { t } from "../words.js";
import { link } from "../router.js";
import { Empty, Head } from "../parts.js";

export default () => html`<${Head} title=${t("lost.title")} />
  <${Empty} title=${t("lost.text")}><p><a class="button primary" href=${link()}>${t("nav.home")}</a></p><//>`;
