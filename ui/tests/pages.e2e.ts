// What a user does with the pages, from the first start to the last stop, on one VM: each story goes on with what the ones before have left, and begins by
// itself where there is nothing (scripts/ui e2e pages STORY).
import './pages/first-run';
import './pages/images';
import './pages/container';
import './pages/files';
import './pages/project-logs';
import './pages/containers';
import './pages/networks';
import './pages/layers';
import './pages/volumes';
import './pages/engine';
